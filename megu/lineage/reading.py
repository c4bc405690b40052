"""Finding a dossier by the name a person uses for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage.dossier import MAIN, Dossier, Seal
from megu.lineage.record import Record
from megu.lineage.verify.run import copies, opened


@dataclass(frozen=True)
class Found:
    """A dossier that is whole. files: those of its folder, by name. purges: the purge documents beside them, oldest first."""

    dossier: Dossier
    records: Sequence[Record]
    seal: Seal
    files: Mapping[str, bytes]
    purges: Sequence[bytes] = ()


def dossier_of(target: str | None, project: Project | None) -> Found:
    """Return the dossier of a run id, ``models:/name/version`` or folder; None: the project's newest. It must be whole and as sealed.

    Raises `MeguError` when there is none.
    """
    target = target or newest(project)
    with ExitStack() as stack:
        every = copies(target, project, stack)
        said = []
        for place, files in every.places.items():
            found, check = opened(files, place)
            if found is not None:
                return Found(found.dossier, found.records, found.seal, files, every.purges_of(place))
            said.append(f"{place}: {check.says}")
    raise MeguError(f"the dossier of {target} cannot be used ({'; '.join(said)})", f"`megu verify {target}` shows every check")


def newest(project: Project | None) -> str:
    """Return the folder of the dossier written last."""
    folders = [path.parent for path in project.dossiers.glob(f"*/{MAIN}")] if project else []
    if not folders:
        raise MeguError("there is no dossier here", "`megu run` writes one, or name a dossier's folder")
    return str(max(folders, key=lambda folder: folder.stat().st_mtime_ns))
