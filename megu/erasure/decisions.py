"""The decisions of a purge, before it acts: what is erased, what stays and until when, what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megu.core.project import Project
from megu.data.arrays import SPLITS
from megu.erasure.search.stores import Stores
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import Covered, DataErased, Entry, Rows


@dataclass(frozen=True)
class Action:
    """One thing to do. kind: "file" (what: its path), "cells" (what: a database's path), "version" (models:/name/3), "run" (a deleted
    MLflow run's id), "data" (a data set's name) or "replaced" (a file of the data set, which its new version replaces). Paths are
    relative to the project. folder: where the files of a version or a run lie. personal: whether it holds anything of the samples, so
    that equal content elsewhere is a copy of them."""

    kind: str
    surface: str
    what: str
    sha256: str | None
    why: str
    folder: str = ""
    personal: bool = True


@dataclass
class Plan:
    """A plan; see `megu.lineage.purged.document.Purge` for the fields that go into it. data: the rows of each data set that is to change."""

    created: str
    previous: str | None
    key: str
    policy: dict[str, Any]
    covers: list[Covered]
    witnessed: list[dict[str, str]]
    actions: list[Action] = field(default_factory=list)
    retained: list[Entry] = field(default_factory=list)
    residual: list[Entry] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)
    data: list[DataErased] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        def rebuilt(kind: type[Any], name: str) -> list[Any]:
            return [kind(**entry) for entry in value[name]]

        data = [DataErased(**{**entry, **{split: Rows(**entry[split]) for split in SPLITS}}) for entry in value["data"]]
        return cls(
            **{
                **value,
                "covers": rebuilt(Covered, "covers"),
                "actions": rebuilt(Action, "actions"),
                "retained": rebuilt(Entry, "retained"),
                "residual": rebuilt(Entry, "residual"),
                "data": data,
            }
        )

    @property
    def decided(self) -> set[str]:
        """The paths of the files on which a decision has been made."""
        left = {entry.what for entry in [*self.residual, *self.retained]}
        return left | {action.what for action in self.actions if action.kind in ("file", "cells", "replaced")}

    def take(
        self, project: Project, stores: Stores, surface: str, path: Path, sha256: str, why: str, *, personal: bool = True
    ) -> None:
        """Decide that a file is erased or, where it is not megu's to remove, left. A file without anything of the samples is left silently."""
        what = project.relative(path)
        reason = ""
        if surface in (places.OTHERS, places.DOSSIERS, places.DATA):
            reason = "not megu's to take away"
        elif surface in (places.CACHE, places.REMOTES):
            reason = stores.keeps(path)
        elif path.is_symlink():
            reason = f"only a link to {path.resolve()}, which megu does not look after"
        if not reason:
            self.actions.append(Action("file", surface, what, sha256, why, personal=personal))
        elif personal:
            self.residual.append(entry(surface, what, f"{why}: {reason}", sha256))


def entry(surface: str, what: str, why: str, sha256: str | None = None, until: str | None = None) -> Entry:
    return Entry(surface=surface, what=what, sha256=sha256, why=why, until=until)
