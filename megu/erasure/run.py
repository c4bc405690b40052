"""A purge from beginning to end: plan, journal, erase, search again, sign, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.exclusion import purging
from megu.core.files.locks import file_lock
from megu.core.files.store import writing
from megu.core.project import Project
from megu.data.writing import atomic_folder
from megu.erasure import act, plan
from megu.erasure.decisions import Plan
from megu.erasure.forgotten import forgotten_samples, targets
from megu.erasure.journal import Journal
from megu.erasure.params import PurgeParams
from megu.erasure.search.scan import Scanner
from megu.lineage.keys import Keys, public_of, read_public, signer
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import (
    CAME_BACK,
    ERASED,
    FORMAT,
    RESIDUAL,
    RETAINED,
    Entry,
    Location,
    Purge,
    Sealed,
    file_name,
    parse,
    sealed,
)
from megu.suppression.erased import suppress

if TYPE_CHECKING:
    from megu.tracking.lineage import MlflowClient

Connected = tuple["MlflowClient | None", str]


@dataclass(frozen=True)
class Outcome:
    """A plan, or its result. sealed: the document; None for a plan only. resumed: whether an unfinished purge was continued."""

    plan: Plan
    surfaces: list[Location]
    sealed: Sealed | None
    resumed: bool = False

    def to_json(self) -> dict[str, Any]:
        from dataclasses import asdict

        kinds = [asdict(action) for action in self.plan.actions]
        entries = {name: [asdict(entry) for entry in getattr(self.plan, name)] for name in ("retained", "residual")}
        return {
            "applied": self.sealed is not None,
            "seal": self.sealed.seal if self.sealed else None,
            "covers": [asdict(entry) for entry in self.plan.covers],
            "surfaces": [asdict(surface) for surface in self.surfaces],
            "actions": kinds,
            **entries,
            "looked": self.plan.looked,
        }


def dry_run(project: Project, names: Sequence[str], params: PurgeParams) -> Outcome:
    """Return what `apply` would do; change nothing. An unfinished purge is what it would continue, whatever is named."""
    if (journal := Journal.of(project)).open:
        return Outcome(decided := journal.plan(), _expected(decided), None, resumed=True)
    connected, why = _reach(project)
    runs = targets(project, names)
    found = forgotten_samples(project, runs, params.test_images)
    made, _ = plan.make(project, runs, found, params, plan.tracked(project, connected, why), newest(project))
    return Outcome(made, _expected(made), None)


def apply(
    project: Project, names: Sequence[str], params: PurgeParams, key_file: Path | None = None, ignored: Sequence[str] = ()
) -> Outcome:
    """Purge, or finish a purge that was stopped, whatever is named now. With nothing to erase, nothing is signed.

    ignored: dead MLflow runs that MLflow still reports as running; the document lists them. An unfinished purge
    keeps ignoring those that it ignored before.

    Raises `MeguError` when there is no key to sign with, a run is under way, or something cannot be erased now.
    """
    signing = signer(Keys(project.keys), key_file)
    if signing is None:
        raise MeguError("there is no key to sign with, and an unsigned purge proves nothing", "make one: `megu keys create`")
    commitments = Keys(project.keys).commitment_key()
    if commitments is None:
        raise MeguError("the key of the commitments is not here", "put it back into .megu/keys/commitments.key")
    journal, (connected, why) = Journal.of(project), _reach(project)
    # Prefect's, MLflow's and DVC's own locks do not keep a run from writing what is being searched for.
    with purging(project), file_lock(project.home / "data.lock"):
        journal.clear()
        resumed = journal.open
        before = journal.plan().policy.get("ignored_runs", []) if resumed else []
        passed = [*before, *_refuse_live_runs(connected, project.home, [*ignored, *before])]
        if resumed:
            decided = journal.plan()
            decided.policy |= _ignoring(passed)
            journal.keep(decided)
        else:
            runs = targets(project, names)
            found = forgotten_samples(project, runs, params.test_images)
            made, scanners = plan.make(project, runs, found, params, plan.tracked(project, connected, why), newest(project))
            if not made.actions:
                return Outcome(made, _expected(made), None)
            made.policy |= _ignoring(passed)
            decided = journal.begin(
                [scanner.patterns for scanner in scanners], lambda folder: act.prepare_data(made, found, folder)
            )
        looked_for = journal.patterns()
        suppress(  # first: from here on the samples must not come back
            project,
            commitments,
            decided.created,
            [(run.mlflow_run_id, run.forgotten) for run in decided.covers],
            [(each.name, patterns.images, patterns.ids) for each, patterns in zip(decided.data, looked_for, strict=True)],
            decided.policy.get("suppress_days", params.suppress_days),
        )
        scanners = [Scanner(patterns) for patterns in looked_for]
        act.carry_out(project, decided, journal.root / "data", scanners, commitments, connected)
        judged = _verdict(project, decided, scanners, plan.tracked(project, connected, why))
        document = _signed(journal, judged, public_of(signing), lambda: sealed(judged, signing))
        publish(project, document, connected)
        journal.end()
    return Outcome(decided, document.purge.surfaces, document, resumed)


def _reach(project: Project) -> Connected:
    from megu.tracking import lineage

    try:
        return lineage.reach(project.home), ""
    except MeguError as error:
        return None, error.what


def _refuse_live_runs(connected: MlflowClient | None, home: Path, ignored: Sequence[str] = ()) -> list[str]:
    """Raise `MeguError` for a run that MLflow reports as running: on another machine or in another folder, it may or may not be alive.

    Return those of ``ignored`` that would have been such a run.
    """
    if connected is None:
        return []
    from megu.tracking import orphans

    orphans.close(connected, home)
    running = orphans.running(connected)
    if left := [run_id for run_id in running if run_id not in ignored]:
        found = connected.get_run(left[0])
        where = found.data.tags[orphans.PROCESS_TAG].partition(" ")[0]
        since = datetime.fromtimestamp(found.info.start_time / 1000, UTC).isoformat(timespec="minutes")
        raise MeguError(
            f"the run {left[0]} on {where} has been under way since {since}, and may write what is being searched for",
            f"wait for it, or stop it; if its process is dead, add --ignore-run {left[0]}: the signed document will say so",
        )
    return sorted(set(ignored) & set(running))


def _ignoring(runs: Sequence[str]) -> dict[str, list[str]]:
    """Return the document's entry for the runs that were ignored."""
    return {"ignored_runs": sorted(set(runs))} if runs else {}


def _expected(made: Plan) -> list[Location]:
    """Return the verdict that results if everything goes as planned."""
    erased = [Entry(surface=a.surface, what=a.what, sha256=a.sha256, why=a.why, until=None) for a in made.actions]
    return _surfaces(erased, made.retained, made.residual, planned=True)


def _surfaces(
    erased: Sequence[Entry], retained: Sequence[Entry], residual: Sequence[Entry], *, planned: bool = False
) -> list[Location]:
    """Return a verdict for every surface."""
    found = []
    for name in places.SURFACES:
        gone, kept, left = ([entry for entry in entries if entry.surface == name] for entries in (erased, retained, residual))
        count = [f"{len(gone):,} {'to erase' if planned else 'erased'}"] if gone else []
        if left:
            says = "; ".join(f"{entry.what}: {entry.why}" for entry in left[:3]) + (
                f"; and {len(left) - 3} more" if len(left) > 3 else ""
            )
            found.append(Location(name=name, verdict=RESIDUAL, says="; ".join([*count, f"left: {says}"])))
        elif kept:
            says = "; ".join(
                f"{entry.what}: {entry.why}" + (f", until {entry.until}" if entry.until else "") for entry in kept[:3]
            )
            found.append(Location(name=name, verdict=RETAINED, says="; ".join([*count, f"stays: {says}"])))
        else:
            found.append(Location(name=name, verdict=ERASED, says="; ".join(count or ["nothing of them is there"])))
    return found


def _verdict(project: Project, decided: Plan, scanners: Sequence[Scanner], mlflow: plan.Tracked) -> Purge:
    """Search everywhere again; what is still found is residual."""
    hits, digests = plan.search_stores(project, scanners, mlflow)
    erased = [Entry(surface=a.surface, what=a.what, sha256=a.sha256, why=a.why, until=None) for a in decided.actions]
    gone = {action.sha256 for action in decided.actions if action.personal and action.surface != places.RESULTS} - {None}
    there = {(action.what, action.sha256) for action in decided.actions if action.kind == "file"}
    replaced = {action.what for action in decided.actions if action.kind == "replaced"}
    residual = [entry for entry in decided.residual if entry.what not in replaced]
    known = {(entry.surface, entry.what) for entry in [*residual, *decided.retained]}
    for path, (surface, found) in hits.items():
        what = project.relative(path)
        if (surface, what) not in known:
            sha256 = digests.get(path, (surface, None))[1]
            residual.append(Entry(surface=surface, what=what, sha256=sha256, why=str(found), until=None))
    for path, (surface, digest) in digests.items():
        what = project.relative(path)
        if (digest in gone or (what, digest) in there) and path not in hits and (surface, what) not in known:
            residual.append(Entry(surface=surface, what=what, sha256=digest, why=CAME_BACK, until=None))
    return Purge(
        format=FORMAT,
        created=decided.created,
        previous=decided.previous,
        key=decided.key,
        policy=decided.policy,
        covers=decided.covers,
        data=decided.data,
        witnessed=decided.witnessed,
        erased=erased,
        retained=decided.retained,
        residual=residual,
        surfaces=_surfaces(erased, decided.retained, residual),
        looked={**plan.counted(scanners), "samples": decided.looked["samples"]},
        environment=plan.environment(),
    )


def _signed(journal: Journal, found: Purge, public: str, sign: Callable[[], Sealed]) -> Sealed:
    """Sign the verdict once: a purge killed while publishing resumes with the same document, if its content is still true."""
    try:
        before = parse(journal.verdict.read_bytes(), journal.verdict.name, [public])
        if replace(before.purge, looked=found.looked) == found:
            return before
    except (OSError, MeguError):
        pass  # no verdict yet, or one by another key
    document = sign()
    with writing(journal.verdict) as temporary:
        temporary.write_bytes(document.to_bytes())
    return document


def publish(project: Project, document: Sealed, connected: MlflowClient | None) -> None:
    """Put the document beside each dossier that it covers, into MLflow and into the ledger; a copy that is already there stays."""
    content = document.to_bytes()
    for covered in document.purge.covers:
        folder = project.dossiers / covered.mlflow_run_id
        name = _own_name(folder, content)
        if not folder.is_dir():
            with atomic_folder(folder) as made:  # a dossier that is in MLflow only
                (made / name).write_bytes(content)
        else:
            with writing(folder / name) as temporary:
                temporary.write_bytes(content)
                temporary.chmod(0o644)
        if connected is not None:
            from megu.tracking import lineage, purging

            if lineage.run_facts(connected, covered.mlflow_run_id) is not None:
                purging.log_purge(connected, covered.mlflow_run_id, name, content, document.seal)
        if not any(event.facts.get("seal") == document.seal for event in project.ledger.events(covered.mlflow_run_id)):
            facts = {
                "seal": document.seal,
                "dossier": covered.seal,
                "surfaces": {surface.name: surface.verdict for surface in document.purge.surfaces},
            }
            project.ledger.append("purge.done", covered.mlflow_run_id, facts)


def _own_name(folder: Path, content: bytes) -> str:
    number = 1
    while (folder / file_name(number)).is_file() and (folder / file_name(number)).read_bytes() != content:
        number += 1
    return file_name(number)


def newest(project: Project) -> str | None:
    """Return the seal of the project's newest purge."""
    if not Keys(project.keys).public.is_file():
        return None
    trusted = [read_public(Keys(project.keys).public)]
    found = []
    for path in project.dossiers.glob("*/purge*.json"):
        try:
            found.append(parse(path.read_bytes(), path.name, trusted))
        except MeguError:
            continue
    return max(found, key=lambda entry: entry.purge.created).seal if found else None
