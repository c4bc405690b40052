"""Recompute everything a dossier says that can be recomputed. One `Check` per line: it holds, it differs, or it cannot be checked here.

A dossier is verified inside the project it was made in (everything is there), or as a folder copied anywhere (what is missing
cannot be checked). Nothing is written, and nothing is loaded that could run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.core.files.store import Missing, sha256_file
from megu.core.project import Project
from megu.lineage import dossier as folder_of
from megu.lineage.dossier import FORGOTTEN, MAIN, NAMES, RECORDS, SEAL, sha256
from megu.lineage.keys import Keys
from megu.lineage.promoted import probes
from megu.lineage.purged import erasures as purges
from megu.lineage.purged.document import is_name as is_purge
from megu.lineage.purged.locations import remotes
from megu.lineage.record import Newer, from_lines
from megu.lineage.verify import checks, tracked
from megu.lineage.verify.context import JSON, Check, Opened, VerificationContext

if TYPE_CHECKING:
    from megu.tracking.lineage import MlflowClient


@dataclass(frozen=True)
class Report:
    """run_id, root, seal: the dossier's; empty where none could be read."""

    target: str
    run_id: str
    root: str
    seal: str
    checks: Sequence[Check]

    @property
    def exit_code(self) -> int:
        """0: all hold. 1: something differs. 2: nothing differs, but something cannot be checked."""
        states = {check.holds for check in self.checks}
        return 1 if False in states else 2 if None in states else 0

    def to_json(self) -> dict[str, JSON]:
        words = {True: "holds", False: "differs", None: "cannot be checked"}
        return {
            "target": self.target,
            "mlflow_run_id": self.run_id,
            "root": self.root,
            "seal": self.seal,
            "exit": self.exit_code,
            "checks": [{"name": check.name, "state": words[check.holds], "says": check.says} for check in self.checks],
        }


def verify(
    target: str, project: Project | None, *, replay: bool = False, trusted: Sequence[str] = (), sealed: bool = False
) -> Report:
    """Check a dossier: ``target`` is a folder, a run id or ``models:/name/version``.

    project: the current one, None outside of any. replay: evaluate again from the weights (minutes on a large set).
    trusted: public keys in hex; by default the project's own. sealed: accept what a purge of this run erased.

    Raises `MeguError` when there is no such dossier.
    """
    with ExitStack() as stack:
        found = copies(target, project, stack)
        found_out: list[Check] = []
        whole: list[tuple[str, Opened]] = []
        for place, files in found.places.items():
            read, said = opened(files, place)
            if read is not None:
                # Each copy is whole in itself; all others must be equal to the first.
                other = [name for name in NAMES if whole and files[name] != found.places[whole[0][0]][name]]
                said = Check(place, False, f"{', '.join(other)} is not as in the {whole[0][0]}") if other else said
                whole.append((place, read))
            found_out.append(said)
        if not whole:
            return Report(target, found.run_id, "", "", found_out)
        run_id = whole[0][1].dossier.run.mlflow_run_id
        erasures = purges.load(project, found.purges, trusted or own_key(project), run_id, sealed)
        case = VerificationContext(
            project, whole[0][1], found.connected, found.unreachable, trusted or own_key(project), erasures=erasures
        )
        found_out.extend(_all(case, replay))
        if found.purges or erasures.covering or sealed:
            found_out.append(_purge(case, erasures))
        found_out.extend(_probes(case, found.probes))
        return Report(target, case.dossier.run.mlflow_run_id, case.dossier.root, case.seal.seal, found_out)


def _purge(case: VerificationContext, erasures: purges.Erasures) -> Check:
    """Check the purges of this run: they are signed, they are of exactly this dossier, and what they erased is still gone."""
    name, wrong = "purge", [*erasures.problems]
    for document in erasures.covering:
        covered = next(run for run in document.purge.covers if run.mlflow_run_id == erasures.run_id)
        if (covered.seal, covered.forgotten) != (case.seal.seal, case.dossier.files[FORGOTTEN]):
            wrong.append(f"the purge {document.seal[:12]}… is of another dossier of this run")
    back = [
        entry.what
        for document in erasures.covering
        for harmless in [document.purge.harmless()]
        for entry in document.purge.erased
        if case.project is not None
        and entry.sha256 is not None
        and entry.sha256 not in harmless
        and (path := case.project.root / entry.what).is_file()
        and sha256_file(path) == entry.sha256
    ]
    wrong += [f"{what} was erased and is back" for what in back]
    if not erasures.covering and not wrong:
        return Check(name, True, "none covers this run")
    count = sum(len(document.purge.erased) for document in erasures.covering)
    left = [entry for document in erasures.covering for entry in document.purge.residual]
    said = f"{len(erasures.covering)} signed, {count} erased, {len(left)} reported as left"
    return Check(name, False, "; ".join(wrong)) if wrong else Check(name, True, said)


def _probes(case: VerificationContext, files: Mapping[str, bytes]) -> Iterator[Check]:
    """Check that the documents a served model is compared with are unchanged since the promotion; yield nothing where there are none."""
    run_id, events = case.dossier.run.mlflow_run_id, case.project.ledger.events(kind=probes.MADE) if case.project else []
    named = [str(event.facts["sha256"]) for event in events if event.facts["run_id"] == run_id]
    if not files and not named:
        return
    wrong = probes.faults(list(files.items()), named)
    said = f"{len(files)} {'document' if len(files) == 1 else 'documents'} of what was promoted, whole"
    yield Check("probes", False, "; ".join(wrong)) if wrong else Check("probes", True, said)


def own_key(project: Project | None) -> list[str]:
    """Return the project's own public key, in hex, if it has one."""
    from megu.lineage.keys import read_public

    if project is None or not Keys(project.keys).public.is_file():
        return []
    return [read_public(Keys(project.keys).public)]


def _reach(project: Project | None) -> tuple[MlflowClient | None, str]:
    if project is None:
        return None, "there is no project here"
    from megu.tracking import lineage

    try:
        return lineage.reader(project.home), ""
    except MeguError as error:
        return None, error.what


@dataclass(frozen=True)
class Copies:
    """The copies of one run's dossier: their files by place; no files where a copy should be and is gone.

    purges, probes: the documents of purges, and of promotions (`megu.lineage.promoted.probes`), beside them, by place and name: they came
    later and are not part of the dossier.
    """

    run_id: str
    places: Mapping[str, Mapping[str, bytes]]
    connected: MlflowClient | None
    unreachable: str
    purges: Mapping[str, bytes]
    probes: Mapping[str, bytes]

    def purges_of(self, place: str) -> list[bytes]:
        """Return the purge documents beside one copy, oldest first."""
        found = {
            name.removeprefix(f"{place}: "): content for name, content in self.purges.items() if name.startswith(f"{place}: ")
        }
        return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]


def copies(target: str, project: Project | None, stack: ExitStack) -> Copies:
    """Find every copy of a dossier: the folder, and the one in MLflow.

    Raises `MeguError` when there is none.
    """
    from megu.tracking import lineage

    connected, unreachable = _reach(project)
    places: dict[str, Mapping[str, bytes]] = {}
    folder, run_id = Path(target), target
    if any((folder / name).is_file() for name in NAMES):
        places["dossier"] = folder_of.read(folder)
        run_id = _run_of(places["dossier"]) or folder.resolve().name
    elif target.startswith("models:/"):
        if connected is None:
            raise MeguError(f"{target} cannot be looked up: {unreachable}", "name a dossier's folder")
        run_id = lineage.resolve(connected, target)
    if project is not None and "dossier" not in places and run_id == Path(run_id).name:
        path = project.dossiers / run_id
        places["dossier"] = folder_of.read(path) if path.is_dir() else {}
    try:
        known = connected is not None and lineage.run_facts(connected, run_id) is not None
    except MeguError as error:
        connected, unreachable, known = None, error.what, False
    if known and connected is not None:
        files = stack.enter_context(lineage.run_files(connected, run_id))
        kept = files / lineage.FOLDER if files else None
        places["dossier in MLflow"] = folder_of.read(kept) if kept and kept.is_dir() else {}
    if not any(places.values()):
        raise MeguError(
            f"there is no dossier of {target}", "name a finished run's MLflow id, a models:/name/version or a folder"
        )
    later = {
        what: {f"{place}: {name}": files[name] for place, files in places.items() for name in files if kind(name)}
        for what, kind in (("purges", is_purge), ("probes", probes.is_name))
    }
    plain = {
        place: {name: content for name, content in files.items() if not is_purge(name) and not probes.is_name(name)}
        for place, files in places.items()
    }
    return Copies(run_id, plain, connected, unreachable, **later)


def _run_of(files: Mapping[str, bytes]) -> str | None:
    try:
        return str(json.loads(files[MAIN])["run"]["mlflow_run_id"])
    except (KeyError, ValueError, TypeError):
        return None


def opened(files: Mapping[str, bytes], place: str) -> tuple[Opened | None, Check]:
    """Read one copy; None where it is not whole, not in a known format, or not as sealed."""
    if not files:
        return None, Check(place, None, "it is gone")
    wrong = [f"{name} is missing" for name in NAMES if name not in files]
    wrong += [f"{name} was added" for name in files if name not in NAMES]
    if wrong:
        return None, Check(place, False, "; ".join(wrong))
    try:
        dossier, seal = folder_of.parse(files[MAIN], MAIN), folder_of.parse_seal(files[SEAL], SEAL)
        wrong = [] if sha256(files[MAIN]) == seal.seal else [f"{MAIN} is not what {SEAL} seals"]
        wrong += [f"{name} has changed" for name in (RECORDS, FORGOTTEN) if sha256(files[name]) != dossier.files.get(name)]
        if wrong:
            return None, Check(place, False, "; ".join(wrong))
        records = from_lines(files[RECORDS], RECORDS)
    except Newer as error:
        return None, Check(place, None, str(error))
    except MeguError as error:
        return None, Check(place, False, error.what)
    whole = Opened(dossier, files[MAIN], seal, records, files[FORGOTTEN])
    return whole, Check(place, True, f"{len(NAMES)} files, whole and as sealed")


def _all(case: VerificationContext, replay: bool) -> Iterator[Check]:
    """Run every check. Files are hashed while MLflow is queried."""
    apart: Sequence[Callable[[VerificationContext], Check]] = (checks.files, checks.cached_results, checks.data)
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Check]] = [pool.submit(guarded, check, case) for check in apart]
        for check in (checks.signature, checks.chain, checks.facts, checks.verdict, checks.commitments):
            yield guarded(check, case)
        if case.dossier.ladder:
            yield guarded(checks.ladder, case)
        asked = [guarded(check, case) for check in tracked.ALL]
        yield from (future.result() for future in waiting)
        yield guarded(checks.dvc, case)
        if case.project is not None and _has_remotes(case.project):
            yield guarded(checks.dvc_remotes, case)
        for check in (checks.code, checks.index):
            yield guarded(check, case)
        yield from asked
    if replay:
        from megu.lineage.verify import replay as again

        for check in (again.metrics_again, again.served_form):
            yield guarded(check, case)


def _has_remotes(project: Project) -> bool:
    """Return whether there are DVC remotes to check; a configuration that cannot be read may have some."""
    try:
        return bool(remotes(project.root))
    except MeguError:
        return True


def guarded(check: Callable[[VerificationContext], Check], case: VerificationContext) -> Check:
    """Run a check; its own failure (a file that cannot be read, a server that is gone) is reported, never raised."""
    name = name_of(check)
    try:
        return check(case)
    except MeguError as error:
        return Check(name, None, error.what)
    except Missing as error:
        return Check(name, None, str(error))
    except OSError as error:
        return Check(name, None, f"{error.strerror}: {error.filename}")
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        return Check(name, False, f"the record is not as megu writes it ({type(error).__name__}: {error})")


def name_of(check: Callable[[VerificationContext], Check]) -> str:
    return check.__name__.replace("_", " ").replace("mlflow", "MLflow")
