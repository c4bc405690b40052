"""The samples of people whose requests are fulfilled: a purge takes all of them, also those that no model was trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from purge_fixtures import garments

from megu.core.project import Project
from megu.data import arrays
from megu.erasure.forgotten import forgotten_samples
from megu.lineage.commitments import commit, fingerprint
from megu.lineage.keys import Keys
from megu.requests.inbox import Inbox
from megu.requests.request import Request


def asked(project: Project, samples: list[bytes], states: tuple[str, ...], **facts: Any) -> None:
    """A request of a person for samples of "photos", in the last of some states."""
    said = {"basis": "contract", "requester": "internal", "due": "2030-12-24", "data": "photos", "person": "p0123456789abcdef"}
    inbox = Inbox(project)
    added = inbox.add(Request(samples=tuple(one.decode() for one in samples), **said))
    for state in states:
        inbox.move([added.id], state, facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "facts", "forgotten", "gone"),
    [
        (("accepted", "promoted"), {}, [], True),  # no model saw any
        (("accepted", "processing", "unlearned"), {"mlflow_run": "run"}, [0], True),
        (("accepted", "processing", "unlearned"), {"mlflow_run": "another"}, [0], True),  # a later run forgets it again
        (("accepted", "processing", "unlearned"), {"mlflow_run": "another"}, [], False),
        (("accepted",), {}, [], False),  # not fulfilled yet
    ],
)
def test_all_that_there_is_of_a_person_goes(
    project: Project, states: tuple[str, ...], facts: dict[str, Any], forgotten: list[int], gone: bool
) -> None:
    project.params.write_text("data: {name: photos}\n")
    images, labels = garments(9, size=12), [0, 1, 0, 1, 0, 1, 0, 1, 0]
    photos = arrays.save(
        project.data("photos"), name="photos", classes=("a", "b"), train=(images[:6], labels[:6]), test=(images[6:], labels[6:])
    )  # type: ignore[arg-type]
    asked(project, [bytes(one) for one in (*photos.train.ids[[0, 3]], photos.test.ids[1])], states, **facts)
    key = Keys(project.keys).commitment_key()
    assert key is not None
    run = SimpleNamespace(
        dossier=SimpleNamespace(scope=SimpleNamespace(key=fingerprint(key)), data=SimpleNamespace(name="other")),
        forgotten=b"".join(commit(key, bytes(photos.train.ids[at])) for at in forgotten),
    )
    found = forgotten_samples(project, [run], test_images=False)  # type: ignore[list-item]
    rows = {split: mask.nonzero()[0].tolist() for _, masks in found.data for split, mask in masks.items()}
    assert rows == ({"train": [0, 3], "test": [1]} if gone else {})
    assert found.forgotten == ({commit(key, bytes(photos.train.ids[at])) for at in (0, 3)} if gone else set())
