"""Plan a purge: what would be erased, what stays and until when, and what is out of reach. Nothing is changed here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from megu import __version__
from megu.core.files.store import sha256_file
from megu.core.project import Project
from megu.data.arrays import Dataset
from megu.data.splits import ids_still_here
from megu.erasure import earlier, policy, versions
from megu.erasure.decisions import Action, Plan, entry
from megu.erasure.forgotten import ForgottenSamples
from megu.erasure.params import PurgeParams
from megu.erasure.search.scan import Found, Scanner, inspect
from megu.erasure.search.stores import Stores
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import fingerprint
from megu.lineage.dossier import FORGOTTEN
from megu.lineage.index import Index
from megu.lineage.purged import erasures
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import Covered, Sealed, is_name
from megu.lineage.verify import checks
from megu.lineage.verify.context import Opened, VerificationContext
from megu.lineage.verify.run import guarded, opened, own_key
from megu.requests.inbox import Inbox
from megu.requests.states import FORGOTTEN as FORGOTTEN_STATES
from megu.requests.states import OPEN

if TYPE_CHECKING:
    from megu.tracking.lineage import MlflowClient
    from megu.tracking.purging import RunPlace, VersionPlace


@dataclass(frozen=True)
class Tracked:
    """What MLflow has; everything is empty without MLflow. unreachable: why it could not be queried."""

    runs: Sequence[RunPlace] = ()
    versions: Sequence[VersionPlace] = ()
    unreachable: str = ""


def tracked(project: Project, connected: MlflowClient | None, unreachable: str) -> Tracked:
    if connected is None:
        return Tracked(unreachable=unreachable)
    from megu.tracking import purging

    return Tracked(purging.runs(connected), purging.versions(connected))


def dossiers(project: Project) -> list[Opened]:
    """Return every dossier of the project that is whole."""
    folders = [path for path in sorted(project.dossiers.glob("*")) if path.is_dir()] if project.dossiers.is_dir() else []
    plain = ({name: content for name, content in folder_of.read(folder).items() if not is_name(name)} for folder in folders)
    read = (opened(files, "dossier")[0] for files in plain)
    return [entry for entry in read if entry is not None]


def make(
    project: Project, runs: Sequence[Opened], found: ForgottenSamples, asked: PurgeParams, mlflow: Tracked, previous: str | None
) -> tuple[Plan, list[Scanner]]:
    """Make the plan for some runs. Return it with the scanners that searched (their counts are in the plan)."""
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
    before = earlier.documents(project, runs)
    scanners = [Scanner(patterns) for patterns in found.patterns()]
    every_hit, digests = search_stores(project, scanners, mlflow)
    hits = {path: found_there for path, found_there in every_hit.items() if found_there[1]}
    known, objects = versions.decide(project, plan, found, alone=asked.shared_stores)
    here = {digest for _, digest in digests.values()}
    gone = _derived(project, plan, found, every, runs, before, asked, mlflow, here)
    waiting = _waiting(project)
    _requests(project, plan, found, hits, waiting)
    _files(project, plan, known, hits, digests, gone)
    earlier.decide(project, plan, known, before, hits, digests, waiting)
    _doubts(project, plan, every_hit, digests)
    _kept(plan, runs)
    _unreachable(project, plan, mlflow, objects | earlier.objects(before))
    plan.looked = counted(scanners)
    return plan, scanners


def _recomputed(project: Project, run: Opened) -> bool:
    """Return whether the commitments of a run hold now, accounting for earlier purges."""
    known = erasures.load(project, {}, own_key(project), run.dossier.run.mlflow_run_id, True)
    return guarded(checks.commitments, VerificationContext(project, run, None, "", [], erasures=known)).holds is True


def counted(scanners: Sequence[Scanner]) -> dict[str, int]:
    """Return how much was searched for, and how much was searched."""
    return {
        "samples": sum(len(scanner.images) for scanner in scanners),
        "of one shade": sum(scanner.patterns.flat for scanner in scanners),
        "files": max((scanner.files for scanner in scanners), default=0),
        "bytes": max((scanner.size for scanner in scanners), default=0),
    }


def elsewhere(mlflow: Tracked) -> list[tuple[str, Path]]:
    """Return MLflow's folders that may lie outside the project, each with its surface."""
    runs = [(places.ARTIFACTS, run.folder) for run in mlflow.runs if run.folder is not None]
    versions = [(places.VERSIONS, version.folder) for version in mlflow.versions if version.folder is not None]
    return [*versions, *runs]


def search_stores(
    project: Project, scanners: Sequence[Scanner], mlflow: Tracked
) -> tuple[dict[Path, tuple[str, Found]], dict[Path, tuple[str, str]]]:
    """Search every store. Return each file in which something was found or that leaves a doubt, with its surface; and the surface and SHA-256
    of every readable file."""
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


def _derived(
    project: Project,
    plan: Plan,
    found: ForgottenSamples,
    every: Sequence[Opened],
    runs: Sequence[Opened],
    before: Sequence[Sealed],
    asked: PurgeParams,
    mlflow: Tracked,
    here: Set[str],
) -> dict[str, str]:
    """Return SHA-256 -> why, for what was made from the samples and may be erased: answers per image, and models trained on them.

    here: the SHA-256 of every file.
    """
    seen = policy.seen(Index(project.index), found.forgotten)
    data = seen.data | {str(each.before["md5"]) for purge in [plan.data, *(was.purge.data for was in before)] for each in purge}
    results = [result for _, result in policy.cached_results(project)]
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
            plan.residual.append(entry(places.STORE, f"the run {run.dossier.run.mlflow_run_id}", why))
    served = {version.weights: version for version in mlflow.versions if version.aliases and version.weights in models}
    allowed, day = policy.until(asked.models_days, max(run.dossier.run.created for run in runs), plan.created)
    for weights in sorted(models):
        named = f"the model {weights[:16]}…"
        if weights in served:
            version = served[weights]
            why = f"trained on forgotten samples and in service as {', '.join(version.aliases)}: give the alias to another version"
            plan.residual.append(entry(places.VERSIONS, str(version), why))
        elif not allowed and weights in here:
            why = "trained on forgotten samples, superseded; kept to go back to (purge.models_days)"
            plan.retained.append(entry(places.VERSIONS, named, why, until=day))
        elif allowed:
            gone[weights] = "a model trained on forgotten samples"
            for version in (entry for entry in mlflow.versions if entry.weights == weights):
                why, folder = "a model trained on forgotten samples", str(version.folder or "")
                plan.actions.append(Action("version", places.VERSIONS, str(version), weights, why, folder))
    for version in mlflow.versions:
        if version.weights not in seen.known and version.weights not in gone:
            plan.residual.append(
                entry(places.VERSIONS, str(version), "no recorded run made it, so nobody here knows what it was trained on")
            )
    return gone


def _trained(made: Sequence[policy.Made], every: Sequence[Opened], seen: policy.Seen) -> set[str]:
    """Return the models among ``made`` trained on forgotten samples, or on a split that no dossier shows to leave them out."""
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
    known: Stores,
    hits: Mapping[Path, tuple[str, Found]],
    digests: Mapping[Path, tuple[str, str]],
    gone: Mapping[str, str],
) -> None:
    """Decide on every file."""
    decided, erased = plan.decided, dict(gone)
    for path, (surface, found) in hits.items():
        what = project.relative(path)
        if what in decided:
            continue
        if surface in (places.TRACKED, places.PREFECT) and _is_database(path):
            plan.actions.append(Action("cells", surface, what, None, str(found)))
        elif surface in (places.TRACKED, places.PREFECT) and path.name.endswith(("-wal", "-shm", "-journal")):
            continue  # merged into its database when that is cleaned
        else:
            plan.take(project, known, surface, path, digests[path][1], str(found))
            if surface in (places.STORE, places.ARTIFACTS):
                erased[digests[path][1]] = str(found)
    _rest(project, plan, known, digests, erased)


def _rest(
    project: Project, plan: Plan, known: Stores, digests: Mapping[Path, tuple[str, str]], erased: Mapping[str, str]
) -> None:
    """Decide on the files in which nothing was found. erased: SHA-256 -> why, of what is erased wherever it is."""
    decided = plan.decided
    results = dict(policy.cached_results(project))
    useless = {path.resolve() for path, result in results.items() if any(ref.sha256 in erased for ref in result.files.values())}
    stay = [
        result for path, result in results.items() if path.resolve() not in useless and project.relative(path) not in decided
    ]
    referred = {ref.sha256 for result in stay for ref in result.files.values()} | _named(project)

    def reason(path: Path, surface: str, digest: str) -> str | None:
        if path in useless:
            return "a kept result whose files go"
        if path.name.startswith(".writing-"):
            return "left by a run that was killed"
        unnamed = surface == places.STORE and path.stem not in referred
        return "no result names it, so nobody knows what it is made of" if unnamed else None

    for path, (surface, digest) in digests.items():
        what = project.relative(path)
        if what in decided or surface == places.DATA:
            continue
        if digest in erased:
            plan.take(project, known, surface, path, digest, erased[digest])
        elif surface == places.CHECKPOINTS:
            plan.take(project, known, surface, path, digest, "a training that was never finished")
        elif (why := reason(path, surface, digest)) is not None:
            plan.take(project, known, surface, path, digest, why, personal=False)


def _named(project: Project) -> set[str]:
    """Return what the dossiers refer to in the store."""
    return {ref.sha256 for entry in dossiers(project) for record in entry.records for ref in record.refs.values()}


def _waiting(project: Project) -> set[Path]:
    """Return the private files of requests that are not fulfilled yet."""
    inbox = Inbox(project)
    open_ones = (each for each in inbox.entries() if each.state in OPEN and each.state not in FORGOTTEN_STATES)
    return {inbox.path(each.id).resolve() for each in open_ones}


def _requests(
    project: Project, plan: Plan, found: ForgottenSamples, hits: Mapping[Path, tuple[str, Found]], waiting: Set[Path]
) -> None:
    """Decide on the private files of requests: those that name forgotten samples are erased too; an open request keeps its file."""
    gone = {bytes(value) for dataset, masks in found.data for value in dataset.train.ids[masks["train"]]}
    for path in sorted([*project.requests.glob("*.json"), *(project.home / "private").glob("*.yaml")]):
        named = _named_files(path, [dataset for dataset, _ in found.data])
        if path.resolve() not in hits and not named & gone:
            continue
        what = project.relative(path)
        if path.resolve() in waiting:
            why = "a request that is not fulfilled yet names some of them: withdraw it, or purge again when it is"
            plan.retained.append(entry(places.LEFTOVERS, what, why, sha256_file(path)))
        else:
            why = f"names {len(named & gone)} of them by their files" if named & gone else str(hits[path.resolve()][1])
            plan.actions.append(Action("file", places.LEFTOVERS, what, sha256_file(path), why))


def _named_files(path: Path, datasets: Sequence[Dataset]) -> set[bytes]:
    """Return the ids of the images that a request or a configuration names by file, in the data set that it names, or in any."""
    try:
        value = json.loads(path.read_bytes())
        about = value.get("data") or ""
        about = about.get("name") if isinstance(about, dict) else about
        files = [str(entry) for entry in value.get("files", value.get("forget", {}).get("files", ()))]
    except (OSError, ValueError, AttributeError, TypeError):
        return set()
    named = [dataset for dataset in datasets if about in ("", dataset.name)]
    return {identifier.encode() for dataset in named for identifier in ids_still_here(dataset, files)}


def _doubts(
    project: Project, plan: Plan, hits: Mapping[Path, tuple[str, Found]], digests: Mapping[Path, tuple[str, str]]
) -> None:
    """Record as residual what may hold something of them; a doubt erases nothing. It is searched again when everything else is gone."""
    decided = {action.what for action in plan.actions if action.kind == "file"} | {each.what for each in plan.residual}
    for path, (surface, found) in hits.items():
        what = project.relative(path)
        if found.doubtful and what not in decided:
            why = str(Found(suspected=found.suspected, unreadable=found.unreadable))
            plan.residual.append(entry(surface, what, why, digests.get(path, (surface, None))[1]))


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _kept(plan: Plan, runs: Sequence[Opened]) -> None:
    """Record what stays of the runs."""
    ids = ", ".join(run.dossier.run.mlflow_run_id for run in runs)
    plan.retained.append(entry(places.STORE, f"of {ids}", policy.KEPT))
    plan.retained.append(entry(places.DOSSIERS, f"of {ids}", policy.KEPT_DOSSIER))
    plan.retained.append(entry(places.SPLITS, "positions", policy.KEPT_SPLITS))


def _unreachable(project: Project, plan: Plan, mlflow: Tracked, objects: Set[str]) -> None:
    """Record what is out of reach from here. objects: MD5s of files that hold samples."""
    for remote in places.remotes(project.root):
        if remote.folder is None:
            named = ", ".join(f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in sorted(objects))
            why = f"{remote.url} cannot be reached from here: remove {named or 'what it has of them'} where it can"
            plan.residual.append(entry(places.REMOTES, remote.name, why))
        elif not remote.there:
            plan.residual.append(
                entry(places.REMOTES, remote.name, f"{remote.folder} is not there: bring it back and purge again")
            )
    if mlflow.unreachable:
        plan.residual.append(entry(places.TRACKED, "MLflow", mlflow.unreachable))
    far = sorted({run.address.split("://")[0] for run in mlflow.runs if run.folder is None})
    if far:
        count = sum(run.folder is None for run in mlflow.runs)
        plan.residual.append(
            entry(places.ARTIFACTS, f"{count} runs", f"their files are at {', '.join(far)} and were not looked at")
        )
    for run in mlflow.runs if _is_ours(project) else ():
        if run.deleted and run.folder is not None and run.folder.is_dir():
            what = "deleted in MLflow, which leaves its files and rows"
            plan.actions.append(Action("run", places.TRACKED, run.run_id, None, what, str(run.folder)))


def _is_ours(project: Project) -> bool:
    """Return whether MLflow's database is the project's own: in any other, deleted runs may belong to people who want them back."""
    from megu.tracking.purging import database

    return database(project.home) == project.home / "mlflow.db"


def environment() -> dict[str, str]:
    return {"version.megu": __version__}


__all__ = ["Action", "Plan", "Tracked", "make"]
