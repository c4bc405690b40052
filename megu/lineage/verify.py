"""Recompute everything a dossier says that can be recomputed. One `Check` a line: it holds, it differs, or it cannot be checked here.

A dossier is verified inside the project it was made in (everything is there), or as a folder copied anywhere (what is not there
cannot be checked). Nothing is written and nothing is loaded that could run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.errors import MeguError
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import SIZE, commit, commit_all, fingerprint
from megu.lineage.dossier import FORGOTTEN, MAIN, NAMES, RECORDS, SEAL, Dossier, Seal, sha256
from megu.lineage.keys import Keys, signed_by
from megu.lineage.record import PRIVATE, Newer, Record, faults, from_lines, root
from megu.project import Project
from megu.report.words import failures, headline
from megu.stages import Result
from megu.store import Ref, sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

JSON = Any


@dataclass(frozen=True)
class Check:
    """holds: True, False (it differs), or None (it cannot be checked here). says: what was looked at, or what is wrong, in one line."""

    name: str
    holds: bool | None
    says: str


@dataclass(frozen=True)
class Report:
    """run_id, root, seal: of the dossier, empty where none could be read."""

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


def summed(name: str, wrong: Sequence[str], missing: Sequence[str], said: str) -> Check:
    """One check over many things: all that are wrong are named, then all that are missing."""
    if wrong:
        return Check(name, False, "; ".join([*wrong, *missing]))
    return Check(name, None, "; ".join(missing)) if missing else Check(name, True, said)


def differences(recorded: Mapping[str, JSON], found: Mapping[str, JSON], *, more: bool = True) -> list[str]:
    """What differs between two mappings, by name. more: whether names that were not recorded count."""
    wrong = [
        f"{name} was {_short(value)}, is {_short(found[name]) if name in found else 'gone'}"
        for name, value in recorded.items()
        if name not in found or found[name] != value
    ]
    return wrong + [f"{name} was added" for name in found if more and name not in recorded]


def _short(value: JSON) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


@dataclass(frozen=True)
class Opened:
    """A copy that is whole. content: ``dossier.json`` as it lies there."""

    dossier: Dossier
    content: bytes
    seal: Seal
    records: list[Record]
    forgotten: bytes


@dataclass
class Case:
    """One dossier under verification. project: where the rest of it may be. connected: MLflow, or unreachable: why it cannot be asked.

    trusted: public keys (hex) that may have signed. memo: what was asked of MLflow already.
    """

    project: Project | None
    opened: Opened
    connected: MlflowClient | None
    unreachable: str
    trusted: Sequence[str]
    memo: dict[str, JSON] = field(default_factory=dict)

    @property
    def dossier(self) -> Dossier:
        return self.opened.dossier

    @property
    def seal(self) -> Seal:
        return self.opened.seal

    @property
    def records(self) -> list[Record]:
        return self.opened.records

    def record(self, stage: str) -> Record | None:
        return next((record for record in self.records if record.stage in stage.split("|")), None)


def verify(target: str, project: Project | None, *, replay: bool = False, trusted: Sequence[str] = ()) -> Report:
    """Check a dossier: ``target`` is a folder, a run id or ``models:/name/version``.

    project: the one at hand, None outside of any. replay: evaluate again from the weights (minutes on a large set).
    trusted: public keys in hex; else the project's own.

    Raises `MeguError` when there is no such dossier.
    """
    with ExitStack() as stack:
        found = copies(target, project, stack)
        checks: list[Check] = []
        whole: list[tuple[str, Opened]] = []
        for place, files in found.places.items():
            read, said = opened(files, place)
            if read is not None:
                # Each copy is whole in itself; the first is the one that all others have to be.
                other = [name for name in NAMES if whole and files[name] != found.places[whole[0][0]][name]]
                said = Check(place, False, f"{', '.join(other)} is not as in the {whole[0][0]}") if other else said
                whole.append((place, read))
            checks.append(said)
        if not whole:
            return Report(target, found.run_id, "", "", checks)
        case = Case(project, whole[0][1], found.connected, found.unreachable, trusted or _own(project))
        checks.extend(_all(case, replay))
        return Report(target, case.dossier.run.mlflow_run_id, case.dossier.root, case.seal.seal, checks)


def _own(project: Project | None) -> list[str]:
    from megu.lineage.keys import read_public

    if project is None or not Keys(project.keys).public.is_file():
        return []
    return [read_public(Keys(project.keys).public)]


def _reach(project: Project | None) -> tuple[MlflowClient | None, str]:
    if project is None:
        return None, "there is no project here"
    from megu.tracking import lineage

    try:
        return lineage.reach(project.home), ""
    except MeguError as error:
        return None, error.what


@dataclass(frozen=True)
class Copies:
    """The copies of one run's dossier: their files by where they are; no files where one should be and is gone."""

    run_id: str
    places: Mapping[str, Mapping[str, bytes]]
    connected: MlflowClient | None
    unreachable: str


def copies(target: str, project: Project | None, stack: ExitStack) -> Copies:
    """Every copy of a dossier that can be found: the folder, and the one in MLflow.

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
    if connected is not None and lineage.run_facts(connected, run_id) is not None:
        files = stack.enter_context(lineage.run_files(connected, run_id))
        kept = files / lineage.FOLDER if files else None
        places["dossier in MLflow"] = folder_of.read(kept) if kept and kept.is_dir() else {}
    if not any(places.values()):
        raise MeguError(
            f"there is no dossier of {target}", "name a finished run's MLflow id, a models:/name/version or a folder"
        )
    return Copies(run_id, places, connected, unreachable)


def _run_of(files: Mapping[str, bytes]) -> str | None:
    try:
        return str(json.loads(files[MAIN])["run"]["mlflow_run_id"])
    except (KeyError, ValueError, TypeError):
        return None


def opened(files: Mapping[str, bytes], place: str) -> tuple[Opened | None, Check]:
    """Read one copy; None where it is not whole, in a form that is known, and as sealed."""
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


def _all(case: Case, replay: bool) -> Iterator[Check]:
    """Every check. Files are hashed beside the questions to MLflow."""
    apart: Sequence[Callable[[Case], Check]] = (files, kept_results, data)
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Check]] = [pool.submit(guarded, check, case) for check in apart]
        for check in (signature, chain, facts, verdict, commitments):
            yield guarded(check, case)
        tracked = [
            guarded(check, case)
            for check in (run_in_mlflow, seal_in_mlflow, artifacts_in_mlflow, model_version, alias, chain_of_dossiers)
        ]
        yield from (future.result() for future in waiting)
        for check in (dvc, code, index):
            yield guarded(check, case)
        yield from tracked
    if replay:
        from megu.lineage import replay as again

        for check in (again.metrics, again.served):
            yield guarded(check, case)


def guarded(check: Callable[[Case], Check], case: Case) -> Check:
    """A check whose own trouble (a file that cannot be read, a server that is gone) is said, never raised."""
    name = name_of(check)
    try:
        return check(case)
    except MeguError as error:
        return Check(name, None, error.what)
    except OSError as error:
        return Check(name, None, f"{error.strerror}: {error.filename}")
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        return Check(name, False, f"what is recorded is not as megu writes it ({type(error).__name__}: {error})")


def name_of(check: Callable[[Case], Check]) -> str:
    return check.__name__.replace("_", " ").replace("mlflow", "MLflow")


def signature(case: Case) -> Check:
    """Signed by whom, if at all."""
    seal, name = case.seal, "signature"
    if not seal.signed or seal.public is None or seal.signature is None:
        if case.trusted:
            return Check(name, False, "unsigned, though there is a key that should have signed it")
        return Check(name, True, "unsigned: nothing says who made it")
    if not signed_by(seal.public, seal.signature, case.opened.content):
        return Check(name, False, f"it is not one of {MAIN} by the key {seal.public[:16]}…")
    if not case.trusted:
        return Check(name, None, f"by the key {seal.public[:16]}…, and whose that is cannot be told: name it with --key")
    if seal.public not in case.trusted:
        return Check(name, False, f"by the key {seal.public[:16]}…, which is none that is trusted here")
    return Check(name, True, f"by the key {seal.public[:16]}…")


def chain(case: Case) -> Check:
    """Each record made of those before it, and all of them the root."""
    wrong = faults(case.records)
    if root(case.records) != case.dossier.root:
        wrong.append("the records do not come to the root")
    return summed("chain", wrong, [], f"{len(case.records)} records come to the root {case.dossier.root[:16]}…")


def facts(case: Case) -> Check:
    """What the dossier says is what its records say."""
    dossier = case.dossier
    pairs: dict[str, tuple[JSON, JSON]] = {}
    if (data := case.record("dataset")) is not None:
        pairs |= {
            f"data {key}": (getattr(dossier.data, key), data.values[key]) for key in ("name", "dvc_hash", "source", "licence")
        }
    if (split := case.record("split")) is not None:
        pairs["split"] = (dossier.scope.split, split.files["positions"]["sha256"])
        pairs["scenario"] = (dossier.scope.scenario, split.values["scenario"])
    for which, stage in (("original", "original|given"), ("unlearned", "unlearn")):
        if (made := case.record(stage)) is not None:
            pairs[which] = (getattr(dossier.models, which), made.files["weights"]["sha256"])
            pairs[f"{which} digest"] = (getattr(dossier.models, f"{which}_digest"), made.values["weights_digest"])
    if (unlearn := case.record("unlearn")) is not None:
        pairs["method"] = (dossier.method["name"], unlearn.parts["method"])
        pairs |= {
            f"unlearn.{key.removeprefix('params.')}": (dossier.parameters["unlearn"].get(key.removeprefix("params.")), value)
            for key, value in unlearn.parts.items()
            if key.startswith("params.")
        }
    if (labeling := next((r for r in case.records if r.label == "labeling"), None)) is not None:
        pairs["labeler"] = (dossier.labeler, labeling.values["labeler"])
    if (evaluation := case.record("evaluation")) is not None:
        pairs["evaluation"] = (dossier.evidence.evaluation, dict(evaluation.values))
    wrong = [name for name, (said, recorded) in pairs.items() if said != recorded]
    metrics = dossier.evidence.evaluation["unlearned"]["metrics"]
    wrong += [
        f"metric {name}"
        for name, value in metrics.items()
        if value is not None and dossier.tracked.run["metrics"].get(name) != value
    ]
    return summed(
        "facts", [f"{name} is not what the records say" for name in wrong], [], f"{len(pairs)} facts are what the records say"
    )


def verdict(case: Case) -> Check:
    """The verdict, made again from the evidence and the thresholds that were applied."""
    evidence = case.dossier.evidence
    thresholds = (evidence.thresholds["forgotten"], evidence.thresholds["near"])
    again = headline(str(case.dossier.request["words"]), evidence.evaluation, *thresholds)
    wrong = [] if again == evidence.verdict else [f"from the evidence it is: {again}"]
    if failures(evidence.evaluation, *thresholds) != evidence.failures:
        wrong.append("what failed is not what the thresholds say")
    return summed("verdict", wrong, [], evidence.verdict)


def commitments(case: Case) -> Check:
    """The commitments are those to the forgotten samples, made again from data and split under the project's key."""
    name, scope = "commitments", case.dossier.scope
    if len(case.opened.forgotten) != scope.commitments * SIZE:
        return Check(name, False, f"{FORGOTTEN} has not the {scope.commitments:,} commitments it should have")
    key = Keys(case.project.keys).commitment_key() if case.project else None
    if key is None:
        return Check(name, None, "the key is not here (.megu/keys/commitments.key of the project)")
    if fingerprint(key) != scope.key:
        return Check(name, False if _at_home(case) else None, "the key here is another one")
    split, positions = case.record("split"), None
    if case.project is not None and split is not None and case.project.store.holds(Ref.from_json(split.files["positions"])):
        positions = case.project.store.arrays(Ref.from_json(split.files["positions"]))
    ids = _ids(case)
    if positions is None or ids is None:
        return Check(name, None, "the data set or the split is not here to make them again")
    forget = [bytes(value) for value in ids[positions["forget"]]]
    retain = [bytes(value) for value in ids[positions["retain"]]]
    wrong = [] if commit_all(key, forget) == case.opened.forgotten else ["they are not those to the forgotten samples"]
    if commit(key, b"".join(sorted(retain))).hex() != scope.retained:
        wrong.append("the retain set is another")
    counts = {group: len(positions[group]) for group in ("forget", "retain", "test_forget", "test_retain")}
    wrong += differences({group: getattr(scope, group) for group in counts}, counts)
    return summed(name, wrong, [], f"{scope.commitments:,} forgotten samples, {scope.retain:,} retained")


def _ids(case: Case) -> Any:
    """The ids of the training images, where the data set is here; None where it is not."""
    import numpy as np

    path = case.project.data(case.dossier.data.name) / "train_ids.npy" if case.project else None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False) if path else None
    except (OSError, ValueError, EOFError):
        return None


def _at_home(case: Case) -> bool:
    """Whether the project at hand is the one the run was made in."""
    return _run(case) is not None


def _run(case: Case) -> dict[str, JSON] | None:
    if case.connected is None:
        return None
    if "run" not in case.memo:
        from megu.tracking import lineage

        case.memo["run"] = lineage.run_facts(case.connected, case.dossier.run.mlflow_run_id)
    found: dict[str, JSON] | None = case.memo["run"]
    return found


def files(case: Case) -> Check:
    """Every file that a stage made, in the content store."""
    refs = {f"{record.label}/{name}": ref for record in case.records for name, ref in record.refs.items()}
    if case.project is None:
        return Check("files", None, f"the {len(refs)} files of the stages are not here")
    wrong, missing, seen = [], [], dict[Path, bool]()
    for name, ref in refs.items():
        path = case.project.store.path(ref)
        if not path.is_file():
            missing.append(f"{name} is not in the store")
            continue
        if path not in seen:
            seen[path] = case.project.store.holds(ref)
        if not seen[path]:
            wrong.append(f"{name} has changed ({path.name[:16]}…)")
    return summed("files", wrong, missing, f"{len(refs)} files of the stages are what they were")


def kept_results(case: Case) -> Check:
    """The kept results, which later runs use."""
    if case.project is None:
        return Check("kept results", None, "they are not here")
    wrong, missing, again = [], [], 0
    for record in case.records:
        path = case.project.results / record.key
        if not path.is_file():
            missing.append(f"the kept result of {record.label} is gone")
        elif sha256_file(path) != case.dossier.results[record.label]:
            if not _made_again(path, record):
                wrong.append(f"the kept result of {record.label} has changed")
            again += 1
    return summed(
        "kept results", wrong, missing, f"{len(case.records)} kept results" + (f", {again} made again since" if again else "")
    )


def _made_again(path: Path, record: Record) -> bool:
    """Whether a kept result that is not the one recorded was made later and is the same."""
    try:
        kept = Result.from_json(json.loads(json.loads(path.read_bytes())["result"]))
        made = dict(record.circumstances)
        return (
            kept.digest == record.result_digest
            and kept.stage == record.stage
            and kept.origin["created"] > made["origin"]["created"]
        )
    except (ValueError, KeyError, TypeError):
        return False


def data(case: Case) -> Check:
    """The data set under ``data/``, every byte."""
    from megu.data import pins as dvc_pins

    name, facts = "data", case.dossier.data
    folder = case.project.data(facts.name) if case.project else None
    if case.project is None or folder is None or not folder.is_dir():
        return Check(name, None, f"the data set {facts.name} is not here")
    found = dvc_pins.hash_dir(folder)
    if (found.md5, found.size, found.nfiles) == (facts.dvc_hash, facts.size, facts.nfiles):
        return Check(name, True, f"{facts.name} has the DVC hash {facts.dvc_hash}")
    pinned = dvc_pins.read(case.project.root).get(facts.name)
    if pinned == found:
        return Check(name, None, f"data.dvc pins a newer version of {facts.name}; this run's was {facts.dvc_hash}")
    return Check(name, False, f"data/{facts.name} has the DVC hash {found.md5}, not {facts.dvc_hash}")


def dvc(case: Case) -> Check:
    """``data.dvc`` and ``dvc.lock``: as committed at the recorded commit, and as they are now."""
    from megu.lineage import versioned

    return versioned.check_pins(case)


def code(case: Case) -> Check:
    """The sources that the stages ran, by digest: as they are installed, or at the recorded commit."""
    from megu.lineage import versioned

    return versioned.check_code(case)


def index(case: Case) -> Check:
    """The row of this run in the index, and the sets it names."""
    from megu.lineage.index import Index
    from megu.lineage.indexing import row_of

    if case.project is None or not _at_home(case):
        return Check("index", None, "the index of the project is not here")
    kept = Index(case.project.index)
    row = kept.row(case.dossier.run.mlflow_run_id)
    if row is None:
        return Check("index", None, "this run is not in the index: `megu lineage index` makes it again")
    wrong = differences(vars(row_of(case.dossier, case.seal.seal, row.trained)), vars(row))
    missing = []
    for what, name in (("training", row.trained), ("forget", row.forgotten)):
        if not kept.path(name).is_file():
            missing.append(f"its {what} set is gone")
        elif sha256_file(kept.path(name)) != name:
            wrong.append(f"its {what} set has changed")
    key, ids = Keys(case.project.keys).commitment_key(), _ids(case)
    if key is not None and ids is not None and not wrong and sha256(commit_all(key, (bytes(i) for i in ids))) != row.trained:
        data_moved = data(case).holds is not True
        (missing if data_moved else wrong).append("its training set is not that of the data set")
    return summed("index", wrong, missing, "which samples this run saw is indexed")


def _home(case: Case, name: str) -> Check | None:
    """What is said when MLflow has nothing on this run."""
    if case.connected is None:
        return Check(name, None, case.unreachable)
    if _run(case) is None:
        return Check(name, None, f"this MLflow has no run {case.dossier.run.mlflow_run_id}")
    return None


def run_in_mlflow(case: Case) -> Check:
    """Parameters, metrics, tags and inputs of the MLflow run."""
    name = "run in MLflow"
    if away := _home(case, name):
        return away
    found, recorded = dict(_run(case) or {}), dict(case.dossier.tracked.run)
    found["params"] = hide_params(found["params"], Keys(case.project.keys).commitment_key() if case.project else None)
    wrong = []
    for kind in ("params", "metrics", "tags"):
        wrong += [f"{kind[:-1]} {text}" for text in differences(recorded.pop(kind), found[kind], more=kind != "tags")]
    later = sorted(set(found["tags"]) - set(case.dossier.tracked.run["tags"]) - _own_tags())
    rest = {key: value for key, value in found.items() if key not in ("params", "metrics", "tags", "status")}
    wrong += differences({key: value for key, value in recorded.items() if key != "status"}, rest)
    if found["status"] != "FINISHED":
        wrong.append(f"its status is {found['status']}, not FINISHED")
    numbers = ", ".join(f"{len(found[kind])} {kind}" for kind in ("params", "metrics"))
    return summed(name, wrong, [], numbers + (f"; tags added since: {', '.join(later)}" if later else ""))


def _own_tags() -> set[str]:
    from megu.tracking import lineage

    return {lineage.ROOT_TAG, lineage.SEAL_TAG}


def hide_params(params: Mapping[str, str], key: bytes | None) -> dict[str, str]:
    """MLflow's parameters with commitments in the place of sample ids; without the key, something that equals no commitment."""
    return {
        name: (f"hmac:{commit(key, value.encode()).hex()}" if key else "hmac: no key here")
        if name in PRIVATE and value != "[]"
        else value
        for name, value in params.items()
    }


def seal_in_mlflow(case: Case) -> Check:
    """The root and the seal as MLflow has had them since the run."""
    name = "seal in MLflow"
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    tags = (_run(case) or {})["tags"]
    wanted = {lineage.ROOT_TAG: case.dossier.root, lineage.SEAL_TAG: sha256(case.opened.content)}
    return summed(
        name, differences(wanted, tags, more=False), [], f"{lineage.ROOT_TAG} and {lineage.SEAL_TAG} are this dossier's"
    )


def artifacts_in_mlflow(case: Case) -> Check:
    """The files of the MLflow run."""
    name = "artifacts in MLflow"
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    recorded = case.dossier.tracked.artifacts
    assert case.connected is not None
    with lineage.run_files(case.connected, case.dossier.run.mlflow_run_id) as folder:
        if folder is None:
            return Check(name, None, "they are gone")
        found = {path: digest for path, digest in lineage.hashes(folder).items() if not path.startswith(f"{lineage.FOLDER}/")}
    return _files(name, recorded, found, f"{len(recorded)} files are what they were")


def _files(name: str, recorded: Mapping[str, str], found: Mapping[str, str], said: str) -> Check:
    wrong = [f"{path} has changed" for path, digest in recorded.items() if path in found and found[path] != digest]
    wrong += [f"{path} was added" for path in found if path not in recorded]
    return summed(name, wrong, [f"{path} is gone" for path in recorded if path not in found], said)


def model_version(case: Case) -> Check:
    """The registered version: what the registry says of it, and each of its files, the weights among them."""
    name, recorded = "model version", case.dossier.tracked.version
    if recorded is None:
        return Check(name, True, "none was registered")
    if away := _home(case, name):
        return away
    from megu.tracking import lineage
    from megu.tracking.registry import DIGEST_TAG, WEIGHTS

    assert case.connected is not None
    found = lineage.version_facts(case.connected, recorded["name"], recorded["version"])
    if found is None:
        return Check(name, None, f"models:/{recorded['name']}/{recorded['version']} is gone")
    plain = [key for key in recorded if key not in ("tags", "files")]
    wrong = differences({key: recorded[key] for key in plain}, {key: found[key] for key in plain})
    wrong += [f"tag {text}" for text in differences(recorded["tags"], found["tags"], more=False)]
    later = sorted(set(found["tags"]) - set(recorded["tags"]))
    with lineage.version_files(case.connected, recorded["source"]) as folder:
        if folder is None:
            return summed(name, wrong, ["its files are gone"], "")
        files = lineage.hashes(folder)
    if not files.get(WEIGHTS) == recorded["tags"].get(DIGEST_TAG) == case.dossier.models.unlearned:
        wrong.append("its weights are not the unlearned model's")
    said = (
        f"models:/{recorded['name']}/{recorded['version']}: {len(files)} files, weights {case.dossier.models.unlearned[:16]}…"
    )
    check = _files(name, recorded["files"], files, said + (f"; tags added since: {', '.join(later)}" if later else ""))
    return summed(
        name, wrong + ([check.says] if check.holds is False else []), [check.says] if check.holds is None else [], check.says
    )


def alias(case: Case) -> Check:
    """The alias that the run gave: still this version's, or moved on by a later recorded run."""
    name, recorded, given = "alias", case.dossier.tracked.version, case.dossier.tracked.alias
    if recorded is None or given is None:
        return Check(name, True, "none was given")
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    assert case.connected is not None
    now = lineage.aliases(case.connected, recorded["name"])
    later = [entry for entry in _newer(case) if entry.tracked.alias == given and entry.tracked.version is not None]
    latest = later[0] if later else case.dossier
    wanted = (latest.tracked.version or {})["version"]
    if now.get(given) != wanted:
        by = "" if not later else f", which run {latest.run.mlflow_run_id} gave it"
        where = f"version {now[given]}" if given in now else "no version"
        return Check(name, False, f"{given} is at {where}, not at version {wanted}{by}")
    others = sorted(found for found, number in now.items() if number == recorded["version"] and found != given)
    more = f"; also {', '.join(others)}, given outside of the recorded runs" if others else ""
    moved = "" if not later else f" (moved on by run {latest.run.mlflow_run_id})"
    return Check(name, True, f"{given} is at version {wanted}{moved}{more}")


def chain_of_dossiers(case: Case) -> Check:
    """The chain of dossiers of the registered model: the one before this, and the way from the newest to this one."""
    name, recorded, before = "chain of dossiers", case.dossier.tracked.version, case.dossier.previous
    if recorded is None:
        return Check(name, True, "no registered model, so no chain")
    if away := _home(case, name):
        return away
    assert case.connected is not None
    wrong, missing = [], []
    if before is not None:
        content = _main_of(case, before.mlflow_run_id)
        if content is None:
            missing.append(f"the dossier before it ({before.mlflow_run_id}) is gone")
        elif sha256(content) != before.seal:
            wrong.append(f"the dossier before it ({before.mlflow_run_id}) has changed")
    newer = _newer(case)
    if broken := str(case.memo.get("broken", "")):
        wrong.append(broken)
    where = "the first" if before is None else f"after {before.seal[:16]}…"
    return summed(name, wrong, missing, f"{where}, {len(newer)} newer")


def _newer(case: Case) -> list[Dossier]:
    """The dossiers from the newest of the registered model back to this one, without this one, newest first."""
    if "newer" in case.memo:
        found: list[Dossier] = case.memo["newer"]
        return found
    from megu.tracking import lineage

    assert case.connected is not None
    assert case.dossier.tracked.version is not None
    name, newer = str(case.dossier.tracked.version["name"]), list[Dossier]()
    step = lineage.head(case.connected, name)
    while True:
        if step is None:
            case.memo["broken"] = f"the chain of {name} does not lead to this dossier"
            break
        run_id, seal = step
        if run_id == case.dossier.run.mlflow_run_id:
            if seal != sha256(case.opened.content):
                case.memo["broken"] = f"the chain of {name} has another dossier of this run"
            break
        content = _main_of(case, run_id)
        if content is None or sha256(content) != seal:
            case.memo["broken"] = (
                f"in the chain of {name} the dossier of run {run_id} is {'gone' if content is None else 'another'}"
            )
            break
        newer.append(folder_of.parse(content, MAIN))
        step = (newer[-1].previous.mlflow_run_id, newer[-1].previous.seal) if newer[-1].previous else None
    case.memo["newer"] = newer
    return newer


def _main_of(case: Case, run_id: str) -> bytes | None:
    """Another run's ``dossier.json``."""
    from megu.tracking import lineage

    assert case.project is not None
    assert case.connected is not None
    path = case.project.dossiers / run_id / MAIN
    if path.is_file():
        return path.read_bytes()
    if lineage.run_facts(case.connected, run_id) is None:
        return None
    with lineage.run_files(case.connected, run_id) as folder:
        kept = folder / lineage.FOLDER / MAIN if folder else None
        return kept.read_bytes() if kept and kept.is_file() else None
