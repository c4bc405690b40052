"""What valid purges account for in a verification: a file that is gone because it was erased is no fault, if exactly that was signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage.commitments import commit
from megu.lineage.dossier import sha256
from megu.lineage.purged.document import DataErased, Sealed, is_name, parse

#: Digits of a seal that are shown to a person.
_SHOWN = 12


@dataclass(frozen=True)
class Erasures:
    """The purges that are accepted, oldest first. problems: those that are not, and why, one line each.

    all_accepted: with ``--sealed``. Without it, what was erased counts as correct for every run except those that a purge covers.
    """

    documents: tuple[Sealed, ...] = ()
    problems: tuple[str, ...] = ()
    run_id: str = ""
    all_accepted: bool = False
    _files: dict[str, str] = field(default_factory=dict)
    _versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for document in self.documents:
            for entry in document.purge.erased:
                if entry.sha256 is not None:
                    self._files.setdefault(entry.sha256, document.seal)
                if entry.what.startswith("models:/"):
                    self._versions.setdefault(entry.what, document.seal)

    @property
    def covering(self) -> list[Sealed]:
        """The purges that cover the run being verified."""
        return [entry for entry in self.documents if any(run.mlflow_run_id == self.run_id for run in entry.purge.covers)]

    @property
    def accepted(self) -> bool:
        """Whether what was erased counts as correct."""
        return self.all_accepted or not self.covering

    def file(self, digest: str) -> str | None:
        """Return the purge that erased the content with this SHA-256, in words; None where none did."""
        return _words(self._files.get(digest))

    def version(self, name: str, version: str) -> str | None:
        """Return the purge that erased a registered version, in words; None where none did."""
        return _words(self._versions.get(f"models:/{name}/{version}"))

    def data(self, md5: str) -> list[DataErased]:
        """Return the new versions of a data set that purges made from the one with this DVC hash, in order."""
        found, now = [], md5
        for document in self.documents:
            for entry in document.purge.data:
                if entry.before["md5"] == now:
                    found.append(entry)
                    now = str(entry.after["md5"])
        return found

    def by(self, entry: DataErased) -> str:
        """Return the purge that made a version, in words."""
        return _words(next((d.seal for d in self.documents if entry in d.purge.data), None)) or ""

    def witnessed(self, run_id: str, seal: str) -> bool:
        """Return whether a purge recomputed the commitments of exactly this dossier while the rows were there."""
        wanted = {"mlflow_run_id": run_id, "seal": seal}
        return any(wanted in document.purge.witnessed for document in self.documents)


def _words(seal: str | None) -> str | None:
    return f"erased by purge {seal[:_SHOWN]}…" if seal else None


def load(project: Project | None, beside: Mapping[str, bytes], trusted: Sequence[str], run_id: str, sealed: bool) -> Erasures:
    """Load the purges of a project, and those beside a dossier. Only what one of the keys ``trusted`` signed is accepted."""
    contents: dict[str, bytes] = {sha256(content): content for content in beside.values()}
    if project is not None and project.dossiers.is_dir():
        for path in sorted(project.dossiers.glob("*/purge*.json")):
            if is_name(path.name):
                content = path.read_bytes()
                contents.setdefault(sha256(content), content)
    documents, problems = [], []
    for content in contents.values():
        try:
            documents.append(parse(content, "purge.json", trusted))
        except MeguError as error:
            problems.append(str(error.what))
    documents.sort(key=lambda entry: (entry.purge.created, entry.seal))
    return Erasures(tuple(documents), tuple(problems), run_id, sealed)


def makes_up(key: bytes, ids: Iterable[Any], erased: Sequence[DataErased]) -> bool:
    """Return whether the training images that are here and the removed rows together make up the version that was there before."""
    return sha256(before(key, ids, erased)) == erased[0].trained


def before(key: bytes, ids: Iterable[Any], erased: Sequence[DataErased]) -> bytes:
    """Return the commitments (`megu.lineage.commitments.commit_all`) to the training images that are here and to those that are gone."""
    there = {commit(key, bytes(value)) for value in ids}
    gone = {commitment for entry in erased for commitment in entry.train.each()}
    return b"".join(sorted(there | gone))


def retained_positions(positions: Any, erased: Sequence[DataErased]) -> tuple[Any, int]:
    """Return where the remaining rows of the first version are in the last one, and how many rows are gone."""
    import numpy as np

    now, gone = np.asarray(positions), 0
    for entry in erased:
        removed = np.asarray(entry.train.positions, dtype=np.int64)
        stays = ~np.isin(now, removed)
        gone += int((~stays).sum())
        now = now[stays] - np.searchsorted(removed, now[stays])
    return now, gone
