"""A person's samples in every data set of a project."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import SPLITS, Dataset
from megu.lineage.commitments import commit
from megu.subjects.kept import Hashes, Subjects, commitment, pseudonym


@dataclass(frozen=True)
class Found:
    """A person's samples in one data set. person: their pseudonym. train, test: sample ids, of the whole data set whatever part is in use."""

    person: str
    data: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    def __str__(self) -> str:
        """How many, and where: "photos: 9 training and 3 test images"."""
        return f"{self.data}: {len(self.train):,} training and {len(self.test):,} test images"


class Search:
    """Finds people in the data sets of a project that have subjects, or in one of them. Each data set is read once."""

    def __init__(self, project: Project, data: str = "") -> None:
        """Raises `MeguError` where there are no subjects, or some cannot be read."""
        subjects = Subjects(project)
        names = [data] if data else subjects.names()
        if not names:
            raise MeguError("no data set here has subjects", "give them with `megu data subjects NAME FILE`")
        self.key, self.without = subjects.key if subjects.names() else b"", [] if data else _without(project, names)
        self._sets = [_Set(project, name, subjects.opened(name), self.key) for name in names]

    @property
    def names(self) -> list[str]:
        """The data sets that are looked in."""
        return [each.name for each in self._sets]

    def find(self, subject: str, where: str) -> list[Found]:
        """The samples of a subject in each data set that has any; where: what names it in an error, which never repeats it.

        Raises `MeguError` for a subject that no data set has, and for a data set that has them and is not here.
        """
        person = commitment(self.key, subject)
        found = [each.find(person) for each in self._sets]
        some = [each for each in found if each is not None]
        if not some and any(each.knows(person) for each in self._sets):
            raise MeguError(
                f"{where}: no sample of this subject is here any more", "they were erased, or left out of the data sets"
            )
        if not some:
            raise MeguError(
                f"{where}: there is no sample of this subject in {', '.join(self.names)}",
                "write the subject as the table of subjects has it",
            )
        return some


class _Set:
    """A data set and its subjects."""

    def __init__(self, project: Project, name: str, hashes: Hashes, key: bytes) -> None:
        self.name, self._hashes, self._key = name, hashes, key
        self._folder = project.data(name)

    def knows(self, person: bytes) -> bool:
        return bool(self._hashes.samples(person))

    def find(self, person: bytes) -> Found | None:
        """None where the person has no sample; those that were erased since are none."""
        wanted = self._hashes.samples(person)
        if not wanted:
            return None
        ids = {split: tuple(sorted(known[one] for one in wanted & known.keys())) for split, known in self._ids.items()}
        return Found(pseudonym(person), self.name, **ids) if any(ids.values()) else None

    @cached_property
    def _ids(self) -> dict[str, dict[bytes, str]]:
        """The ids of each split by the commitments to them."""
        if not (self._folder / "meta.json").is_file():
            raise MeguError(
                f"data set {self.name} has samples of this subject and is not here",
                f"bring it back: `megu data fetch {self.name}`",
            )
        dataset: Dataset = arrays.load(self._folder)
        return {
            split: {commit(self._key, bytes(value)): value.decode() for value in getattr(dataset, split).ids.tolist()}
            for split in SPLITS
        }


def _without(project: Project, names: list[str]) -> list[str]:
    """The data sets under data/ that have no subjects."""
    return sorted({path.parent.name for path in project.root.glob("data/*/meta.json")} - set(names))
