"""A run that saw a part of each class (``data.per_class``): what is made again from its dossier is made of that part."""

from __future__ import annotations

from typing import Any

import dossier_fixtures as made
import numpy as np
import pytest

from megu.core.project import Project
from megu.data import arrays, pins
from megu.data.arrays import Dataset, limited, save
from megu.data.splits import ForgetParams, make_split
from megu.lineage import indexing
from megu.lineage.commitments import commit, commit_all
from megu.lineage.dossier import FORGOTTEN, sha256
from megu.lineage.keys import Keys
from megu.lineage.verify import checks
from megu.lineage.verify.context import Opened, VerificationContext


@pytest.fixture
def dataset(project: Project) -> Dataset:
    Keys(project.keys).commitment_key(create=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(30) % 3
    return save(
        project.data("photos"), name="photos", classes="abc", train=(images[:30], labels), test=(images[30:], labels[:10])
    )


def recorded(project: Project, dataset: Dataset, limit: int | None) -> Opened:
    """The dossier of a run that forgot class a, as far as data, split and commitments go."""
    key = Keys(project.keys).commitment_key() or b""
    seen = limited(dataset, limit)
    split = make_split(seen, ForgetParams(classes=("a",)), 0)
    groups = {name: getattr(split, name) for name in ("forget", "retain", "test_forget", "test_retain")}
    positions = project.store.put_arrays(groups)
    forgotten = commit_all(key, [bytes(value) for value in seen.train.ids[split.forget]])
    scope = {
        **{name: len(entry) for name, entry in groups.items()},
        "key": checks.fingerprint(key),
        "commitments": len(split.forget),
        "retained": commit(key, b"".join(sorted(bytes(value) for value in seen.train.ids[split.retain]))).hex(),
    }
    changes: dict[str, Any] = {
        "data": {"dvc_hash": pins.hash_dir(dataset.path).md5},
        "scope": scope,
        "files": {FORGOTTEN: sha256(forgotten)},
        "parameters": {"data": {"name": "photos", **({} if limit is None else {"per_class": limit})}},
    }
    found = made.found(**changes)
    chain = [
        record if record.label != "split" else type(record)(**{**vars(record), "files": {"positions": positions.to_json()}})
        for record in found.records
    ]
    return Opened(found.dossier, b"", found.seal, chain, forgotten)


@pytest.mark.parametrize("limit", [None, 4])
def test_which_says_trained_of_what_the_run_saw_and_of_nothing_else(
    project: Project, dataset: Dataset, limit: int | None
) -> None:
    run = recorded(project, dataset, limit)
    indexing.add(project, run.dossier, "a seal", run.forgotten)
    seen = set(limited(dataset, limit).train.ids.tolist())
    assert len(seen) == (30 if limit is None else 12)
    for identifier, label in zip(dataset.train.ids.tolist(), dataset.train.labels.tolist(), strict=True):
        (answer,) = indexing.which(project, identifier.decode())[1]
        if identifier not in seen:
            assert (answer.original, answer.unlearned) == ("never saw", "never saw")
        else:
            assert (answer.original, answer.unlearned) == ("trained", "trained" if label else "forgot")


def test_runs_with_another_limit_do_not_share_a_training_set(project: Project, dataset: Dataset) -> None:
    rows = []
    for limit in (None, 4, 5):
        run = recorded(project, dataset, limit)
        indexing.add(project, run.dossier, "a seal", run.forgotten)
        rows.append(indexing.Index(project.index).rows()[-1].trained)
    assert len(set(rows)) == 3


@pytest.mark.parametrize("limit", [None, 4])
def test_the_commitments_are_made_again_of_the_same_part(project: Project, dataset: Dataset, limit: int | None) -> None:
    case = VerificationContext(project, recorded(project, dataset, limit), None, "", [])
    assert checks.commitments(case).holds is True, checks.commitments(case)
    other = VerificationContext(project, recorded(project, dataset, 3), None, "", [])
    other.opened = Opened(recorded(project, dataset, 5).dossier, b"", case.seal, other.records, other.opened.forgotten)
    assert checks.commitments(other).holds is False, "a limit that was not the run's"


def test_the_limit_of_a_dossier_is_that_of_its_record(project: Project, dataset: Dataset) -> None:
    case = VerificationContext(project, recorded(project, dataset, 4), None, "", [])
    assert "data per_class is not what the records say" in checks.facts(case).says


def test_a_dossier_from_before_there_was_a_limit_is_of_the_whole_set(project: Project, dataset: Dataset) -> None:
    old = recorded(project, dataset, None)
    assert "per_class" not in old.dossier.parameters["data"]
    assert old.dossier.per_class is None
    assert checks.commitments(VerificationContext(project, old, None, "", [])).holds is True
    assert arrays.load(project.data("photos")).limit is None
