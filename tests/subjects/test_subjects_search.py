"""A person's samples in every data set: by the tables there are, and what is equal to the pixel in any other."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purge_fixtures import garments

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import Dataset
from megu.subjects.search import Search
from megu.subjects.store import Subjects

IMAGES = garments(12, size=8)
PEOPLE = st.dictionaries(st.integers(0, 9), st.sets(st.sampled_from("abc"), min_size=1), min_size=1)


def stored(project: Project, name: str, rows: list[int], test: list[int]) -> Dataset:
    parts = ((IMAGES[at], [0, *[1] * (len(at) - 1)]) for at in (rows, test))
    return arrays.save(project.data(name), name=name, classes=("a", "b"), train=next(parts), test=next(parts))  # type: ignore[arg-type]


@settings(max_examples=10)
@given(PEOPLE, st.booleans())
def test_all_and_only_a_persons_samples_are_found_in_every_data_set(people: dict[int, set[str]], known: bool) -> None:
    """people: image -> who is on it. Data sets "a" and "b" share the images 0, 4 and 5; known: whether "b" has a table of its own."""
    with TemporaryDirectory() as root:
        finds_all_and_only_theirs(Project(Path(root)), people, known)


def finds_all_and_only_theirs(project: Project, people: dict[int, set[str]], known: bool) -> None:
    rows = {"a": ([0, 1, 2, 3, 4, 5], [6, 7]), "b": ([4, 5, 8, 9], [0, 10])}
    sets = {name: stored(project, name, *splits) for name, splits in rows.items()}
    tables = {
        name: {(bytes(part.ids[at]), who) for part, own in zip((data.train, data.test), rows[name], strict=True)
               for at, image in enumerate(own) for who in people.get(image, ())}
        for name, data in sets.items() if name == "a" or known
    }  # fmt: skip
    for name, pairs in tables.items():
        Subjects(project).record(name, pairs)
    told = {name: {image for image in (*own[0], *own[1]) if image in people} for name, own in rows.items() if name in tables}
    seen = set().union(*told.values())
    for who in "abc":
        theirs = {image for image in seen if who in people[image]}
        search = Search(project)
        if not theirs:
            with pytest.raises(MeguError, match="there is no sample of this subject"):
                search.find(who, "here")
            continue
        found = {each.data: (each.train, each.test) for each in search.find(who, "here")}
        wanted = {
            name: tuple(
                tuple(sorted(part.ids[at].decode() for at, image in enumerate(own) if image in theirs))
                for part, own in zip((data.train, data.test), rows[name], strict=True)
            )
            for name, data in sets.items()
        }
        assert found == {name: ids for name, ids in wanted.items() if any(ids)}


def test_who_was_erased_is_told_and_one_data_set_can_be_asked_alone(project: Project) -> None:
    data, _ = stored(project, "a", [0, 1, 2], [3]), stored(project, "b", [0, 4], [5])
    Subjects(project).record("a", {(bytes(data.train.ids[0]), "Anna"), (bytes(data.train.ids[1]), "Bo")})
    assert [each.data for each in Search(project).find("Anna", "here")] == ["a", "b"]
    assert Search(project).without == ["b"]
    assert [(each.data, len(each.train), len(each.test)) for each in Search(project, "a").find("Anna", "here")] == [("a", 1, 0)]
    stored(project, "a", [1, 2], [3])
    with pytest.raises(MeguError, match="no sample of this subject is here any more"):
        Search(project).find("Anna", "here")
