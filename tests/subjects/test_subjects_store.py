"""The keyed hashes of subjects: all and only a subject's samples are found, nothing without the key, and nothing that vanished in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage.commitments import commit
from megu.lineage.keys import Keys
from megu.subjects.store import RECORDED, Hashes, Subjects, commitment, pseudonym

KEY, OTHER = b"k" * 32, b"o" * 32
SAMPLES = [f"{number:032x}".encode() for number in range(40)]
PAIRS = st.sets(st.tuples(st.sampled_from(SAMPLES), st.text(min_size=1, max_size=3)), min_size=1, max_size=60)


@settings(max_examples=25)
@given(PAIRS)
def test_all_and_only_the_samples_of_a_subject_are_found(pairs: set[tuple[bytes, str]]) -> None:
    hashes = Hashes.of(KEY, pairs)
    subjects = {subject for _, subject in pairs}
    for subject in subjects:
        theirs = {commit(KEY, sample) for sample, one in pairs if one == subject}
        assert hashes.samples(commitment(KEY, subject)) == theirs
        assert hashes.samples(commitment(OTHER, subject)) == set()
        assert hashes.samples(commit(KEY, subject.encode())) == set()
    assert hashes.samples(commitment(KEY, "nobody")) == set()
    assert hashes.count() == (len(subjects), len({sample for sample, _ in pairs}))


def test_ten_thousand_subjects_over_two_data_sets_of_different_sizes(project: Project) -> None:
    rng, subjects = np.random.default_rng(0), Subjects(project)
    every = {
        data: {(f"{data}{number:031x}".encode()[-32:], f"person-{rng.integers(10_000)}") for number in range(count)}
        for data, count in (("a", 20_000), ("b", 8_000))
    }
    for data, pairs in every.items():
        assert subjects.record(data, pairs).rows == len(pairs)
    key = subjects.key
    opened = {data: subjects.opened(data) for data in every}
    wanted: dict[tuple[str, str], set[bytes]] = {}
    for data, pairs in every.items():
        for sample, subject in pairs:
            wanted.setdefault((data, subject), set()).add(commit(key, sample))
    for number in range(10_000):
        person = commitment(key, f"person-{number}")
        for data in every:
            assert opened[data].samples(person) == wanted.get((data, f"person-{number}"), set())


def recorded(project: Project) -> Path:
    Subjects(project).record("photos", {(SAMPLES[0], "Anna Smith"), (SAMPLES[1], "Anna Smith"), (SAMPLES[1], "Bo")})
    return Subjects(project).path("photos")


def test_without_the_key_a_file_says_counts_only(project: Project) -> None:
    content, (key, _) = recorded(project).read_bytes(), (Keys(project.keys).commitment_key(), None)
    assert key is not None
    assert b'"rows":3' in content
    known = [
        b"Anna",
        SAMPLES[0],
        commit(key, SAMPLES[0]),
        commitment(key, "Anna Smith"),
        pseudonym(commitment(key, "Anna Smith")).encode(),
    ]
    assert not any(value in content for value in known)
    before = Subjects(project).header("photos")
    assert (before.subjects, before.samples) == (2, 2)
    (project.keys / "commitments.key").write_text(OTHER.hex())
    with pytest.raises(MeguError, match="do not open"):
        Subjects(project).opened("photos")


def test_what_was_recorded_is_in_the_ledger_once_and_a_new_table_takes_the_old_ones_place(project: Project) -> None:
    recorded(project)
    recorded(project)
    assert [dict(event.facts) for event in project.ledger.events("photos", RECORDED)] == [{"subjects": 2, "samples": 2}]
    Subjects(project).record("photos", {(SAMPLES[2], "Bo")})
    opened = Subjects(project).opened("photos")
    assert opened.samples(commitment(Subjects(project).key, "Anna Smith")) == set()
    assert Subjects(project).names() == ["photos"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), r"subjects of photos are gone \(\.megu/subjects/photos\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "do not open"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()), "are damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"rows":3', b'"rows":2')), "do not open"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2')), "by a newer megu"),
        (lambda path: (path.parents[1] / "keys" / "commitments.key").unlink(), "the key of the subjects is not here"),
    ],
)
def test_what_is_not_whole_is_an_error_and_never_nobody(project: Project, damage: object, said: str) -> None:
    damage(recorded(project))  # type: ignore[operator]
    with pytest.raises(MeguError, match=said):
        Subjects(project).opened("photos")


def test_a_data_set_without_subjects_is_told(project: Project) -> None:
    with pytest.raises(MeguError, match="data set 'photos' has no subjects: add them with `megu data subjects photos FILE`"):
        Subjects(project).opened("photos")
