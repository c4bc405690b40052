"""What the cache of a project holds, and removing what nothing needs any more.

The cache is Prefect's result records under ``.megu/results`` and the files that they refer to under ``.megu/store``. A result recorded in
a dossier stays, and so do its files: `megu verify` checks both. Everything else that is removed can be computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.files.exclusion import purging
from megu.core.files.store import Ref
from megu.core.project import Project
from megu.erasure.policy import cached_results
from megu.lineage import reading
from megu.lineage.dossier import read
from megu.lineage.purged.document import is_name
from megu.lineage.record import Record
from megu.lineage.verify.run import opened


@dataclass(frozen=True)
class Entry:
    """One cached result. created: when it was computed (UTC). run, flow: the MLflow run and the Prefect flow run that computed it, empty
    where unknown. files: those it refers to. size: bytes of its record and of its files, which other results may share.
    """

    key: str
    stage: str
    created: datetime
    run: str
    flow: str
    files: tuple[Ref, ...]
    size: int

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "created": self.created.isoformat(timespec="seconds"),
            "files": [ref.to_json() for ref in self.files],
        }


@dataclass(frozen=True)
class Needed:
    """Why results (by cache key) and files (by SHA-256) stay: who needs them, in words for a person."""

    results: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, records: Iterator[Record] | list[Record], by: str) -> None:
        for record in records:
            self.results.setdefault(record.key, by)
            for ref in record.refs.values():
                self.files.setdefault(ref.sha256, by)


@dataclass(frozen=True)
class Pruned:
    """What is, or was, removed. results: records. files: of the store. spared: how many of the selected results stay, by who needs them.
    size: bytes."""

    results: tuple[Path, ...]
    files: tuple[Path, ...]
    spared: Mapping[str, int]
    size: int

    def to_json(self) -> dict[str, Any]:
        return {
            "results": [path.name for path in self.results],
            "files": [path.name for path in self.files],
            "spared": dict(self.spared),
            "bytes": self.size,
        }


def entries(project: Project) -> list[Entry]:
    """Return every cached result, oldest first. A record that cannot be read counts as one of an unknown run, without files."""
    known = dict(cached_results(project))
    found = []
    for path in sorted(project.results.glob("*-*")) if project.results.is_dir() else []:
        if path.name.startswith(".") or not path.is_file():
            continue
        status, result = path.stat(), known.get(path)
        files = tuple(result.files.values()) if result else ()
        origin = result.origin if result else {}
        found.append(
            Entry(
                key=path.name,
                stage=path.name.rpartition("-")[0],
                created=datetime.fromtimestamp(status.st_mtime, UTC),
                run=origin.get("mlflow_run_id", ""),
                flow=origin.get("flow_run_id", ""),
                files=files,
                size=status.st_size + sum(ref.size for ref in files),
            )
        )
    return sorted(found, key=lambda entry: (entry.created, entry.key))


def stored(project: Project) -> list[Path]:
    """Return every file of the store, without what a killed process was still writing."""
    return sorted(path for path in project.store.root.glob("??/*") if path.is_file() and not path.name.startswith("."))


def unnamed(project: Project, cached: list[Entry], needed: Needed) -> list[Path]:
    """Return the files of the store that no result refers to and nothing needs: those of a stopped stage, or of a removed result."""
    named = {project.store.path(ref) for entry in cached for ref in entry.files}
    return [path for path in stored(project) if path not in named and _sha256(path) not in needed.files]


def by_dossiers(project: Project) -> Needed:
    """Return what the dossiers in the project's folder have records of.

    Raises `MeguError` for a dossier that is not whole: what it needs cannot be known.
    """
    needed = Needed()
    for folder in sorted(project.dossiers.glob("*")) if project.dossiers.is_dir() else []:
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        found, check = opened({name: content for name, content in read(folder).items() if not is_name(name)}, folder.name)
        if found is None:
            raise MeguError(
                f"the dossier {project.relative(folder)} is not whole ({check.says}), so what it needs cannot be known",
                f"`megu verify {folder.name}` shows every check; repair it, or move it away",
            )
        needed.add(list(found.records), "a dossier")
    return needed


def by_versions(project: Project, needed: Needed) -> None:
    """Add what the registered versions need, except deleted ones: their weights, and the records of a dossier that only MLflow has.

    Raises `MeguError` where MLflow cannot be queried, or has a dossier that cannot be used.
    """
    from megu import tracking
    from megu.tracking import lineage, purging

    where = purging.database(project.home)
    if where is not None and not where.is_file():
        return
    connected = tracking.client(project.home)
    for version in purging.living(connected):
        if version.weights:
            needed.files.setdefault(version.weights, "a registered version")
        if not version.run_id or (project.dossiers / version.run_id).is_dir():
            continue
        facts = lineage.run_facts(connected, version.run_id)
        if facts and lineage.SEAL_TAG in facts["tags"]:
            needed.add(list(reading.dossier_of(version.run_id, project).records), "a registered version")


def plan(project: Project, days: int | None, run: str | None, now: datetime | None = None) -> Pruned:
    """Return what `prune` would remove; change nothing. days: minimum age, counted from when a result was computed. run: only what this
    MLflow run or Prefect flow run computed; without it, also files of that age that nothing refers to.

    Raises `MeguError` where what is needed cannot be known, and for a run of which no result is here.
    """
    now = now or datetime.now(UTC)
    cached, needed = entries(project), by_dossiers(project)
    by_versions(project, needed)
    asked = [entry for entry in cached if run is None or run in (entry.run, entry.flow)]
    if run is not None and not asked:
        raise MeguError(f"no cached result was computed by the run {run}", "`megu cache list` names the run of each")
    asked = [entry for entry in asked if days is None or now - entry.created >= timedelta(days=days)]
    spared: dict[str, int] = {}
    going = []
    for entry in asked:
        if by := needed.results.get(entry.key):
            spared[by] = spared.get(by, 0) + 1
        else:
            going.append(entry)
    gone = {entry.key for entry in going}
    stays = {ref.sha256 for entry in cached if entry.key not in gone for ref in entry.files} | set(needed.files)
    files = {project.store.path(ref) for entry in going for ref in entry.files if ref.sha256 not in stays}
    if run is None:
        files |= {path for path in unnamed(project, cached, needed) if days is None or _age(path, now) >= timedelta(days=days)}
    there = sorted(path for path in files if path.is_file())
    results = tuple(project.results / entry.key for entry in going)
    return Pruned(results, tuple(there), spared, sum(path.stat().st_size for path in (*results, *there)))


def prune(project: Project, days: int | None, run: str | None) -> Pruned:
    """Remove what `plan` says. No run of the project can be under way meanwhile: it may be about to use what would be removed.

    Records are removed first, so that wherever this is stopped, each remaining result has its files.
    """
    with purging(project):
        found = plan(project, days, run)
        for path in (*found.results, *found.files):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise MeguError(
                    f"{project.relative(path)} cannot be removed ({error.strerror})",
                    "make its folder writable, and prune again",
                ) from None
        for folder in {path.parent for path in found.files}:
            with suppress(OSError):  # it still holds other files
                folder.rmdir()
    return found


def _sha256(path: Path) -> str:
    return path.name.partition(".")[0]


def _age(path: Path, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(path.stat().st_mtime, UTC)
