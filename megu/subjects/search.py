"""A person's samples in every data set of a project."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import SPLITS
from megu.lineage.commitments import commit
from megu.subjects.store import Hashes, Subjects, commitment, pseudonym


@dataclass(frozen=True)
class Found:
    """A person's samples in one data set. person: their pseudonym. train, test: sample ids in the whole data set, whatever part is in use."""

    person: str
    data: str
    train: tuple[str, ...]
    test: tuple[str, ...]


class Search:
    """Finds people in the data sets of a project, or in one of them. Each data set is read once.

    Which person an image belongs to is known from the subjects of any data set. If another data set, with or without subjects of its own, has
    a pixel-identical image, that image is theirs too.
    """

    def __init__(self, project: Project, data: str = "") -> None:
        """Read the data sets. Raises `MeguError` where there are no subjects, or some cannot be read."""
        subjects = Subjects(project)
        self.names = [data] if data else subjects.names()
        if not self.names:
            raise MeguError("no data set here has subjects", "add them with `megu data subjects NAME FILE`")
        here = {path.parent.name for path in project.root.glob("data/*/meta.json")}
        #: The data sets without subjects: only pixel-identical images are found there.
        self.without = [] if data else sorted(here - set(self.names))
        opened = {name: subjects.opened(name) for name in self.names}
        self._key = subjects.key
        self._sets = {name: _Set(project, name, opened.get(name), self._key) for name in (*self.names, *self.without)}

    def find(self, subject: str, where: str) -> list[Found]:
        """Return a subject's samples in each data set that has any. where: what an error refers to; it never repeats the subject.

        Raises `MeguError` for a subject that no data set has, and for a data set that has samples of the subject but is not here.
        """
        person = commitment(self._key, subject)
        theirs = frozenset[str]().union(*(self._sets[name].of(person) for name in self.names))
        if not theirs and any(self._sets[name].knows(person) for name in self.names):
            raise MeguError(
                f"{where}: no sample of this subject is here any more", "they were erased, or left out of the data sets"
            )
        if not theirs:
            raise MeguError(
                f"{where}: there is no sample of this subject in {', '.join(self.names)}",
                "write the subject as the table of subjects has it",
            )
        found = {name: each.here(theirs) for name, each in self._sets.items()}
        return [Found(pseudonym(person), name, **ids) for name, ids in found.items() if any(ids.values())]


class _Set:
    """A data set, and its subjects if it has any."""

    def __init__(self, project: Project, name: str, hashes: Hashes | None, key: bytes) -> None:
        self._name, self._hashes, self._key = name, hashes, key
        self._folder = project.data(name)

    def knows(self, person: bytes) -> bool:
        return self._hashes is not None and bool(self._hashes.samples(person))

    def of(self, person: bytes) -> set[str]:
        """Return the ids of a person's samples, without those erased since. Raises `MeguError` for a data set that is not here."""
        wanted = self._hashes.samples(person) if self._hashes is not None else frozenset()
        if wanted and not self._is_here:
            raise MeguError(
                f"data set {self._name} has samples of this subject and is not here",
                f"bring it back: `megu data fetch {self._name}`",
            )
        return {self._committed[one] for one in wanted & self._committed.keys()} if wanted else set()

    def here(self, ids: Set[str]) -> dict[str, tuple[str, ...]]:
        """Return those of the ids that each split has."""
        return {split: tuple(sorted(ids & known)) for split, known in self._ids.items()}

    @property
    def _is_here(self) -> bool:
        return (self._folder / "meta.json").is_file()

    @cached_property
    def _ids(self) -> dict[str, frozenset[str]]:
        dataset = arrays.load(self._folder) if self._is_here else None
        return {
            split: frozenset(value.decode() for value in getattr(dataset, split).ids.tolist()) if dataset else frozenset()
            for split in SPLITS
        }

    @cached_property
    def _committed(self) -> dict[bytes, str]:
        """Every id by the commitment to it."""
        return {commit(self._key, one.encode()): one for known in self._ids.values() for one in known}
