"""A purge on paper: what would be erased, what stays and until when, and what is out of reach. Nothing is changed here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu import __version__
from megu.data import advice, pins
from megu.data.arrays import SPLITS, Dataset
from megu.data.splits import ids_still_here
from megu.errors import MeguError
from megu.lineage import checks
from megu.lineage import dossier as folder_of
from megu.lineage.case import Case, Opened
from megu.lineage.commitments import commit, commit_all, fingerprint
from megu.lineage.dossier import FORGOTTEN, sha256
from megu.lineage.index import Index
from megu.lineage.verify import guarded, opened, own_key
from megu.project import Project
from megu.purge import erasures, places, policy
from megu.purge.document import Covered, DataErased, Entry, Rows, is_name
from megu.purge.params import PurgeParams
from megu.purge.scan import Found, Scanner, inspect
from megu.purge.sought import Masks, Sought
from megu.requests.inbox import Inbox
from megu.requests.states import FORGOTTEN as FORGOTTEN_STATES
from megu.requests.states import OPEN
from megu.store import sha256_file

if TYPE_CHECKING:
    from megu.tracking.lineage import MlflowClient
    from megu.tracking.purging import RunPlace, VersionPlace


@dataclass(frozen=True)
class Action:
    """One thing to do. kind: "file" (what: its path), "cells" (of the database what), "version" (models:/name/3), "run" (a deleted MLflow
    run's id), "data" (a data set's name) or "replaced" (a file of the data set, which its new version replaces). Paths are relative to the
    project. folder: where a version's or a run's files lie."""

    kind: str
    surface: str
    what: str
    sha256: str | None
    why: str
    folder: str = ""


@dataclass
class Plan:
    """See `megu.purge.document.Purge` for the fields that go into it. rows: of each data set that is to change."""

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


@dataclass(frozen=True)
class Tracked:
    """What MLflow has; all empty where there is none. unreachable: why it could not be asked."""

    runs: Sequence[RunPlace] = ()
    versions: Sequence[VersionPlace] = ()
    unreachable: str = ""


def tracked(project: Project, connected: MlflowClient | None, unreachable: str) -> Tracked:
    if connected is None:
        return Tracked(unreachable=unreachable)
    from megu.tracking import purging

    return Tracked(purging.runs(connected), purging.versions(connected))


def dossiers(project: Project) -> list[Opened]:
    """Every dossier of the project that is whole."""
    folders = [path for path in sorted(project.dossiers.glob("*")) if path.is_dir()] if project.dossiers.is_dir() else []
    plain = ({name: content for name, content in folder_of.read(folder).items() if not is_name(name)} for folder in folders)
    read = (opened(files, "dossier")[0] for files in plain)
    return [entry for entry in read if entry is not None]


def make(
    project: Project, runs: Sequence[Opened], found: Sought, asked: PurgeParams, mlflow: Tracked, previous: str | None
) -> tuple[Plan, list[Scanner]]:
    """The plan for some runs, and the scanners that looked (their counts are in the plan)."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    every = dossiers(project)
    plan = Plan(
        created=now,
        previous=previous,
        key=fingerprint(found.key),
        policy=asdict(asked),
        covers=[
            Covered(
                mlflow_run_id=run.dossier.run.mlflow_run_id,
                seal=run.seal.seal,
                request=str(run.dossier.request["words"]),
                forgotten=run.dossier.files[FORGOTTEN],
            )
            for run in runs
        ],
        witnessed=[
            {"mlflow_run_id": run.dossier.run.mlflow_run_id, "seal": run.seal.seal}
            for run in every
            if _recomputed(project, run)
        ],
    )
    scanners = [Scanner(needles) for needles in found.needles()]
    every_hit, digests = look(project, scanners, mlflow)
    hits = {path: entry for path, entry in every_hit.items() if entry[1]}
    _data(project, plan, found)
    here = {digest for _, digest in digests.values()}
    gone = _derived(project, plan, found, every, runs, asked, mlflow, here)
    _requests(project, plan, found, hits)
    _files(project, plan, hits, digests, gone)
    _purged_before(project, plan, runs, hits, digests)
    _doubts(project, plan, every_hit, digests)
    _kept(plan, runs)
    _unreachable(project, plan, mlflow)
    plan.looked = counted(scanners)
    return plan, scanners


def _recomputed(project: Project, run: Opened) -> bool:
    """Whether the commitments of a run hold now, earlier purges accounted for."""
    known = erasures.load(project, {}, own_key(project), run.dossier.run.mlflow_run_id, True)
    return guarded(checks.commitments, Case(project, run, None, "", [], erasures=known)).holds is True


def counted(scanners: Sequence[Scanner]) -> dict[str, int]:
    """How much was looked for, and at."""
    return {
        "samples": sum(len(scanner.images) for scanner in scanners),
        "of one shade": sum(scanner.needles.flat for scanner in scanners),
        "files": max((scanner.files for scanner in scanners), default=0),
        "bytes": max((scanner.size for scanner in scanners), default=0),
    }


def elsewhere(mlflow: Tracked) -> list[tuple[str, Path]]:
    """Folders of MLflow's that may lie outside the project."""
    runs = [(places.ARTIFACTS, run.folder) for run in mlflow.runs if run.folder is not None]
    versions = [(places.VERSIONS, version.folder) for version in mlflow.versions if version.folder is not None]
    return [*versions, *runs]


def look(
    project: Project, scanners: Sequence[Scanner], mlflow: Tracked
) -> tuple[dict[Path, tuple[str, Found]], dict[Path, tuple[str, str]]]:
    """Every file in which something was found or that leaves a doubt, with its surface; and the surface and SHA-256 of every file that can be
    read."""
    hits: dict[Path, tuple[str, Found]] = {}
    digests: dict[Path, tuple[str, str]] = {}
    for surface, path in places.files(project, elsewhere(mlflow)):
        try:
            found, digest = inspect(scanners, path)
        except FileNotFoundError:
            continue
        if found or found.doubtful:
            hits[path] = surface, found
        if digest is not None:
            digests[path] = surface, digest
    return hits, digests


def _data(project: Project, plan: Plan, found: Sought) -> None:
    """The data sets, and what DVC's cache and remotes have of their present versions."""
    for dataset, masks in found.data:
        name = dataset.path.name
        if more := advice.strays(dataset.path):  # the folder is replaced as a whole
            raise MeguError(advice.beside(name, more), f"move them out of data/{name}")
        before = pins.hash_dir(dataset.path)
        ids = [bytes(value) for value in dataset.train.ids]
        plan.data.append(
            DataErased(
                name=name,
                before=vars(before),
                after={},
                trained=sha256(commit_all(found.key, ids)),
                train=_rows(found.key, dataset, masks, "train"),
                test=_rows(found.key, dataset, masks, "test"),
            )
        )
        counts = " and ".join(f"{int(mask.sum()):,} {split}" for split, mask in masks.items() if mask.any())
        plan.actions.append(Action("data", places.DATA, name, None, f"a new version without {counts} images"))
        if dataset.path.is_symlink():
            plan.residual.append(
                _entry(places.DATA, str(dataset.path.resolve()), "data/ has only a link to it: take it away yourself")
            )
        changed = _changed(dataset, masks)
        for path in changed:
            what = project.relative(project.data(name) / path.name)
            why = "of the version that has the images"
            plan.actions.append(Action("replaced", places.DATA, what, sha256_file(path), why))
        plan.actions.extend(_in_dvc(project, dataset, changed, before.md5))


def _rows(key: bytes, dataset: Dataset, masks: Masks, split: str) -> Rows:
    positions = masks[split].nonzero()[0].tolist()
    ids = getattr(dataset, split).ids
    return Rows(positions=positions, commitments="".join(commit(key, bytes(ids[position])).hex() for position in positions))


def _changed(dataset: Dataset, masks: Masks) -> list[Path]:
    """The files of this version that the next does not have: those of the splits that change, and the facts."""
    splits = tuple(f"{split}_" for split in SPLITS if masks[split].any())
    return [file for file in sorted(dataset.path.iterdir()) if file.name.startswith(splits) or file.name == "meta.json"]


def _in_dvc(project: Project, dataset: Dataset, changed: Sequence[Path], listing: str) -> list[Action]:
    """The cached files of this version that the next does not have, and the listing."""
    hashes = [listing, *map(_md5, changed)]
    stores = [(places.CACHE, places.cache(project.root))]
    stores += [(places.REMOTES, remote.folder) for remote in places.remotes(project.root) if remote.folder is not None]
    found = []
    for surface, folder in stores:
        for md5 in hashes:
            for path in (folder / "files" / "md5" / md5[:2] / md5[2:], folder / md5[:2] / md5[2:]):
                if path.is_file():
                    why = f"of the version of {dataset.name} that has the images"
                    found.append(Action("file", surface, project.relative(path.resolve()), sha256_file(path), why))
    return found


def _md5(path: Path) -> str:
    """The name that DVC's cache has for a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _derived(
    project: Project,
    plan: Plan,
    found: Sought,
    every: Sequence[Opened],
    runs: Sequence[Opened],
    asked: PurgeParams,
    mlflow: Tracked,
    here: Set[str],
) -> dict[str, str]:
    """SHA-256 -> why, of what was made of the samples and may go: answers one by one, and models that were trained on them.

    here: the SHA-256 of every file.
    """
    seen = policy.seen(Index(project.index), found.forgotten)
    data = seen.data | {str(entry.before["md5"]) for entry in plan.data}
    results = [result for _, result in policy.kept_results(project)]
    records = [(entry.dossier.data.dvc_hash, entry.records) for entry in every]
    made = [entry for entry in policy.made(results, records) if entry.data in data]
    gone = {
        entry.sha256: policy.PER_SAMPLE[entry.stage, entry.name]
        for entry in made
        if (entry.stage, entry.name) in policy.PER_SAMPLE
    }
    models = seen.models | (_trained(made, every, seen) - seen.innocent)
    for run in every:
        if run.dossier.data.dvc_hash in data and run.dossier.run.mlflow_run_id not in seen.runs:
            why = (
                "it is not in the index, so nobody knows what its models were trained on: `megu lineage index`, and purge again"
            )
            plan.residual.append(_entry(places.STORE, f"the run {run.dossier.run.mlflow_run_id}", why))
    served = {version.weights: version for version in mlflow.versions if version.aliases and version.weights in models}
    allowed, day = policy.until(asked.models_days, max(run.dossier.run.created for run in runs), plan.created)
    for weights in sorted(models):
        named = f"the model {weights[:16]}…"
        if weights in served:
            version = served[weights]
            why = f"trained on forgotten samples and in service as {', '.join(version.aliases)}: give the alias to another version"
            plan.residual.append(_entry(places.VERSIONS, str(version), why))
        elif not allowed and weights in here:
            kept = _entry(
                places.VERSIONS, named, "trained on forgotten samples, superseded; kept to go back to (purge.models_days)"
            )
            plan.retained.append(Entry(**{**asdict(kept), "until": day}))
        elif allowed:
            gone[weights] = "a model trained on forgotten samples"
            for version in (entry for entry in mlflow.versions if entry.weights == weights):
                why, folder = "a model trained on forgotten samples", str(version.folder or "")
                plan.actions.append(Action("version", places.VERSIONS, str(version), weights, why, folder))
    for version in mlflow.versions:
        if version.weights not in seen.known and version.weights not in gone:
            plan.residual.append(
                _entry(places.VERSIONS, str(version), "no recorded run made it, so nobody here knows what it was trained on")
            )
    return gone


def _trained(made: Sequence[policy.Made], every: Sequence[Opened], seen: policy.Seen) -> set[str]:
    """The models among ``made`` that were trained on forgotten samples, or on a split of which no dossier says that it leaves them out."""
    without = {
        split
        for run in every
        if not seen.runs.get(run.dossier.run.mlflow_run_id, False)
        for split in policy.splits_of(run.records)
    }
    return {
        entry.sha256
        for entry in made
        if policy.MODELS.get(entry.stage) == entry.name
        or (policy.RETAINING.get(entry.stage) == entry.name and entry.split not in without)
    }


def _files(
    project: Project,
    plan: Plan,
    hits: Mapping[Path, tuple[str, Found]],
    digests: Mapping[Path, tuple[str, str]],
    gone: Mapping[str, str],
) -> None:
    """A decision on every file."""
    decided = {action.what for action in plan.actions if action.kind == "file"} | {entry.what for entry in plan.retained}
    erased = dict(gone)
    for path, (surface, found) in hits.items():
        what = project.relative(path)
        if surface == places.DATA or what in decided:
            continue
        if surface in (places.TRACKED, places.PREFECT) and _is_database(path):
            plan.actions.append(Action("cells", surface, what, None, str(found)))
        elif surface in (places.TRACKED, places.PREFECT) and path.name.endswith(("-wal", "-shm", "-journal")):
            continue  # goes into its database when that is cleaned
        elif surface in (places.OTHERS, places.DOSSIERS):
            plan.residual.append(_entry(surface, what, f"{found}: not megu's to take away", digests[path][1]))
        else:
            plan.actions.append(Action("file", surface, what, digests[path][1], str(found)))
            if surface in (places.STORE, places.ARTIFACTS):
                erased[digests[path][1]] = str(found)
    _rest(project, plan, digests, erased)


def _rest(project: Project, plan: Plan, digests: Mapping[Path, tuple[str, str]], erased: Mapping[str, str]) -> None:
    """The files in which nothing was found. erased: SHA-256 -> why, of what goes wherever it is."""
    results = dict(policy.kept_results(project))
    useless = {path.resolve() for path, result in results.items() if any(ref.sha256 in erased for ref in result.files.values())}
    referred = {ref.sha256 for result in results.values() for ref in result.files.values()} | _named(project)

    def reason(path: Path, surface: str, digest: str) -> str | None:
        if digest in erased:
            return erased[digest]
        if path in useless:
            return "a kept result whose files go"
        if surface == places.CHECKPOINTS:
            return "a training that was never finished"
        if path.name.startswith(".writing-"):
            return "left by a run that was killed"
        unnamed = surface == places.STORE and path.stem not in referred
        return "no result names it, so nobody knows what it is made of" if unnamed else None

    decided = {action.what for action in plan.actions}
    for path, (surface, digest) in digests.items():
        what = project.relative(path)
        if what in decided or surface in (places.DATA, places.OTHERS, places.DOSSIERS):
            continue
        if (why := reason(path, surface, digest)) is not None:
            plan.actions.append(Action("file", surface, what, digest, why))


def _named(project: Project) -> set[str]:
    """What the dossiers name in the store."""
    return {ref.sha256 for entry in dossiers(project) for record in entry.records for ref in record.refs.values()}


def _requests(project: Project, plan: Plan, found: Sought, hits: Mapping[Path, tuple[str, Found]]) -> None:
    """The private files of requests: those that name forgotten samples by their files go too; what an open request names stays for it."""
    gone = {bytes(value) for dataset, masks in found.data for value in dataset.train.ids[masks["train"]]}
    inbox = Inbox(project)
    waiting = {
        inbox.path(entry.id).resolve()
        for entry in inbox.entries()
        if entry.state in OPEN and entry.state not in FORGOTTEN_STATES
    }
    for path in sorted([*project.requests.glob("*.json"), *(project.home / "private").glob("*.yaml")]):
        named = _named_files(path, [dataset for dataset, _ in found.data])
        if path.resolve() not in hits and not named & gone:
            continue
        what = project.relative(path)
        if path.resolve() in waiting:
            why = "a request that is not fulfilled yet names some of them: withdraw it, or purge again when it is"
            plan.retained.append(_entry(places.LEFTOVERS, what, why))
        else:
            why = f"names {len(named & gone)} of them by their files" if named & gone else str(hits[path.resolve()][1])
            plan.actions.append(Action("file", places.LEFTOVERS, what, sha256_file(path), why))


def _named_files(path: Path, datasets: Sequence[Dataset]) -> set[bytes]:
    """The ids of the images that a request or a configuration names by their files, in the data set that it names, or in any."""
    try:
        value = json.loads(path.read_bytes())
        about = value.get("data") or ""
        about = about.get("name") if isinstance(about, dict) else about
        files = [str(entry) for entry in value.get("files", value.get("forget", {}).get("files", ()))]
    except (OSError, ValueError, AttributeError, TypeError):
        return set()
    named = [dataset for dataset in datasets if about in ("", dataset.name)]
    return {identifier.encode() for dataset in named for identifier in ids_still_here(dataset, files)}


#: Between why something was left, and which purge found it.
_SAID = ", as the purge"


def _purged_before(
    project: Project,
    plan: Plan,
    runs: Sequence[Opened],
    hits: Mapping[Path, tuple[str, Found]],
    digests: Mapping[Path, tuple[str, str]],
) -> None:
    """What earlier purges of these runs erased and is back, and what they had to leave: there is nothing to search by any more."""
    covered = {run.dossier.run.mlflow_run_id for run in runs}
    documents = [
        document
        for document in erasures.load(project, {}, own_key(project), "", True).documents
        if covered & {run.mlflow_run_id for run in document.purge.covers}
    ]
    known = {entry.what for entry in [*plan.residual, *plan.retained]} | {action.what for action in plan.actions}
    data = (places.DATA, places.CACHE, places.REMOTES)
    erased = [(entry, document) for document in documents for entry in document.purge.erased if entry.sha256 is not None]
    anywhere = {entry.sha256: document for entry, document in erased if entry.surface in data}
    there = {(entry.what, entry.sha256): document for entry, document in erased}
    left = {entry.what: (entry, document) for document in documents for entry in document.purge.residual if entry.sha256}
    for path, (surface, digest) in digests.items():
        what = project.relative(path)
        if what in known or path in hits:
            continue
        if surface != places.DATA and (document := anywhere.get(digest) or there.get((what, digest))) is not None:
            why = f"was erased by the purge {document.seal[:12]}… and is back"
            if surface in (places.OTHERS, places.DOSSIERS):
                plan.residual.append(_entry(surface, what, f"{why}: not megu's to take away", digest))
            else:
                plan.actions.append(Action("file", surface, what, digest, why))
        elif what in left:
            entry, document = left[what]
            changed = "" if digest == entry.sha256 else ", which has changed since, and nobody can look again"
            why = f"{entry.why.partition(_SAID)[0]}{_SAID} {document.seal[:12]}… found{changed}"
            plan.residual.append(_entry(surface, what, why, digest))


def _doubts(
    project: Project, plan: Plan, hits: Mapping[Path, tuple[str, Found]], digests: Mapping[Path, tuple[str, str]]
) -> None:
    """What may hold something of them and is not erased for a doubt: it is looked at again when all else is gone."""
    decided = {action.what for action in plan.actions if action.kind == "file"} | {entry.what for entry in plan.residual}
    for path, (surface, found) in hits.items():
        what = project.relative(path)
        if found.doubtful and what not in decided:
            why = str(Found(suspected=found.suspected, unreadable=found.unreadable))
            plan.residual.append(_entry(surface, what, why, digests.get(path, (surface, None))[1]))


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _kept(plan: Plan, runs: Sequence[Opened]) -> None:
    """What stays of the runs."""
    ids = ", ".join(run.dossier.run.mlflow_run_id for run in runs)
    plan.retained.append(_entry(places.STORE, f"of {ids}", policy.KEPT))
    plan.retained.append(_entry(places.DOSSIERS, f"of {ids}", policy.KEPT_DOSSIER))
    plan.retained.append(_entry(places.SPLITS, "positions", policy.KEPT_SPLITS))


def _unreachable(project: Project, plan: Plan, mlflow: Tracked) -> None:
    """What is out of reach from here."""
    for remote in places.remotes(project.root):
        if remote.folder is None:
            why = f"{remote.url} cannot be reached from here: run `dvc gc --cloud --remote {remote.name} --workspace` where it can"
            plan.residual.append(_entry(places.REMOTES, remote.name, why))
        elif not remote.there:
            plan.residual.append(
                _entry(places.REMOTES, remote.name, f"{remote.folder} is not there: bring it back and purge again")
            )
    if mlflow.unreachable:
        plan.residual.append(_entry(places.TRACKED, "MLflow", mlflow.unreachable))
    far = sorted({run.address.split("://")[0] for run in mlflow.runs if run.folder is None})
    if far:
        count = sum(run.folder is None for run in mlflow.runs)
        plan.residual.append(
            _entry(places.ARTIFACTS, f"{count} runs", f"their files are at {', '.join(far)} and were not looked at")
        )
    for run in mlflow.runs:
        if run.deleted and run.folder is not None and run.folder.is_dir():
            what = "deleted in MLflow, which leaves its files and rows"
            plan.actions.append(Action("run", places.TRACKED, run.run_id, None, what, str(run.folder)))


def _entry(surface: str, what: str, why: str, sha256: str | None = None) -> Entry:
    return Entry(surface=surface, what=what, sha256=sha256, why=why, until=None)


def by_surface(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.surface, []).append(entry)
    return found


def environment() -> dict[str, str]:
    return {"version.megu": __version__}


__all__ = ["Action", "MeguError", "Plan", "Tracked", "by_surface", "make"]
