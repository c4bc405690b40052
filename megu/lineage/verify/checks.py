"""The checks of the dossier itself and of the project: each says whether one thing is as recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.store import Ref, sha256_file
from megu.core.stages import Result
from megu.evaluation.gate import GateParams, decide, provided_retrain
from megu.evaluation.text import headline
from megu.lineage import format1
from megu.lineage.commitments import SIZE, commit, commit_all, fingerprint
from megu.lineage.dossier import FORGOTTEN, MAIN, RECORDS, parse, read, sha256
from megu.lineage.dossier import describe_provided_retrain as said_of_given
from megu.lineage.keys import Keys, signed_by
from megu.lineage.promoted.rungs import rung_of
from megu.lineage.record import Record, faults, from_lines, root
from megu.lineage.verify.context import JSON, Check, VerificationContext, differences, summed
from megu.tracking import charts

if TYPE_CHECKING:
    from megu.lineage.purged.document import DataErased


def signature(case: VerificationContext) -> Check:
    """Check who signed the dossier, if anyone did."""
    seal, name = case.seal, "signature"
    if not seal.signed or seal.public is None or seal.signature is None:
        if case.trusted:
            return _unsigned(case)
        return Check(name, True, "unsigned: nothing says who made it")
    if not signed_by(seal.public, seal.signature, case.opened.content):
        return Check(name, False, f"it is not a signature of {MAIN} by the key {seal.public[:16]}…")
    if not case.trusted:
        return Check(name, None, f"by the key {seal.public[:16]}…, whose owner is not known: name it with --key")
    if seal.public not in case.trusted:
        return Check(name, False, f"by the key {seal.public[:16]}…, which is not trusted here")
    return Check(name, True, f"by the key {seal.public[:16]}…")


def _unsigned(case: VerificationContext) -> Check:
    """Check a dossier without a signature where there is a key: either the key signed that the dossier is older, or it is a fault."""
    from megu.lineage.verify import unsigned

    wrong = "unsigned, though there is a key that should have signed it"
    try:
        if case.project is not None and case.seal.seal in unsigned.seals(case.project, case.trusted):
            return Check("signature", True, "unsigned: older than the key, and on the list that the key signed")
    except MeguError as error:
        return Check("signature", False, f"{wrong}; {error.what}")
    return Check("signature", False, f"{wrong} (`megu keys adopt RUN` for one that is older than the key)")


def chain(case: VerificationContext) -> Check:
    """Check that each record is made from those before it, and that all of them together give the root."""
    wrong = faults(case.records)
    if root(case.records) != case.dossier.root:
        wrong.append("the records do not give the root")
    return summed("chain", wrong, [], f"{len(case.records)} records give the root {case.dossier.root[:16]}…")


def facts(case: VerificationContext) -> Check:
    """Check that the dossier says what its records say."""
    dossier = case.dossier
    pairs: dict[str, tuple[JSON, JSON]] = {}
    if (data := case.record("dataset")) is not None:
        pairs |= {
            f"data {key}": (getattr(dossier.data, key), data.values[key]) for key in ("name", "dvc_hash", "source", "licence")
        }
        pairs["data per_class"] = (dossier.per_class, data.values.get("per_class"))
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
    retrain = case.record("given-reference")
    used = str(retrain.files["weights"]["sha256"]) if retrain else None
    pairs["given retrain"] = (provided_retrain(dossier.evidence.evaluation), used)
    if used:
        pairs["what it was compared with"] = (dossier.evidence.reference, said_of_given(used))
    wrong = [name for name, (said, recorded) in pairs.items() if said != recorded]
    metrics, logged = dossier.evidence.evaluation["unlearned"]["metrics"], charts.of_unlearned(dossier.tracked.run["metrics"])
    wrong += [f"metric {name}" for name, value in metrics.items() if value is not None and logged.get(name) != value]
    return summed(
        "facts", [f"{name} is not what the records say" for name in wrong], [], f"{len(pairs)} facts are what the records say"
    )


def verdict(case: VerificationContext) -> Check:
    """Recompute the gate's verdict from the evidence, the thresholds that were applied and the champion of that time."""
    evidence, request = case.dossier.evidence, str(case.dossier.request["words"])
    wrong: list[str] = []
    if evidence.gate is None:
        failures = format1.failures(evidence.evaluation, evidence.thresholds["forgotten"], evidence.thresholds["near"])
    else:
        again = decide(evidence.evaluation, GateParams(**evidence.thresholds), champion=evidence.gate.champion)
        failures = again.failures
        if again.decision != evidence.gate.decision:
            wrong.append(f"from the evidence the gate's decision is: {again.decision}")
        if again.rules != evidence.gate.rules:
            wrong.append("what each rule says is not what the evidence gives")
    if (sentence := headline(request, evidence.evaluation, failures)) != evidence.verdict:
        wrong.append(f"from the evidence it is: {sentence}")
    if failures != evidence.failures:
        wrong.append("what failed is not what the thresholds say")
    decided = f"; gate: {evidence.gate.decision}" if evidence.gate else ""
    return summed("verdict", wrong, [], f"{evidence.verdict}{decided}")


def ladder(case: VerificationContext) -> Check:
    """Check that each rung is what the dossier of its run says, and that none before the last passed."""
    *before, own = case.dossier.ladder
    wrong, missing = [], []
    if own != rung_of(case.dossier, case.records):
        wrong.append("the last rung is not what the evidence and the records say")
    if [rung.number for rung in case.dossier.ladder] != list(range(1, len(before) + 2)):
        wrong.append("the rungs are not numbered consecutively")
    if passed := [rung.number for rung in before if rung.outcome not in ("fail", "skipped", "error")]:
        wrong.append(f"rung {passed[0]} did not fail, and others follow it")
    for rung in (rung for rung in before if rung.ran):
        folder = case.project.dossiers / rung.mlflow_run_id if case.project else None
        if folder is None or not folder.is_dir():
            missing.append(f"the dossier of rung {rung.number} is not here")
            continue
        files = read(folder)
        made, records = parse(files[MAIN], MAIN), from_lines(files[RECORDS], RECORDS)
        if sha256(files[RECORDS]) != made.files[RECORDS] or rung != rung_of(made, records, sha256(files[MAIN])):
            wrong.append(f"rung {rung.number} is not what the dossier of its run says")
    return summed("ladder", wrong, missing, f"{len(before) + 1} rungs are what the dossiers of their runs say")


def commitments(case: VerificationContext) -> Check:
    """Recompute the commitments to the forgotten samples from data and split under the project's key."""
    name, scope = "commitments", case.dossier.scope
    if len(case.opened.forgotten) != scope.commitments * SIZE:
        return Check(name, False, f"{FORGOTTEN} does not have the {scope.commitments:,} commitments it should have")
    key = Keys(case.project.keys).commitment_key() if case.project else None
    if key is None:
        return Check(name, None, "the key is not here (.megu/keys/commitments.key of the project)")
    if fingerprint(key) != scope.key:
        return Check(name, False if case.at_home() else None, "the key here is a different one")
    split, positions = case.record("split"), None
    if case.project is not None and split is not None and case.project.store.holds(Ref.from_json(split.files["positions"])):
        positions = case.project.store.arrays(Ref.from_json(split.files["positions"]))
    ids = _ids(case)
    if positions is None or ids is None:
        return Check(name, None, "the data set or the split that they are computed from is not here")
    if (purged := _purged(case)) is not None:
        return _commitments_after(case, key, positions, purged)
    forget = [bytes(value) for value in ids[positions["forget"]]]
    retain = [bytes(value) for value in ids[positions["retain"]]]
    wrong = (
        [] if commit_all(key, forget) == case.opened.forgotten else ["they are not the commitments to the forgotten samples"]
    )
    if commit(key, b"".join(sorted(retain))).hex() != scope.retained:
        wrong.append("the retain set is a different one")
    counts = {group: len(positions[group]) for group in ("forget", "retain", "test_forget", "test_retain")}
    wrong += differences({group: getattr(scope, group) for group in counts}, counts)
    return summed(name, wrong, [], f"{scope.commitments:,} forgotten samples, {scope.retain:,} retained")


def _purged(case: VerificationContext) -> list[DataErased] | None:
    """Return the versions that purges made from the run's data set, if the last of them is the one that is here; else None."""
    from megu.data import pins as dvc_pins

    if case.project is None or case.erasures is None or not (steps := case.erasures.data(case.dossier.data.dvc_hash)):
        return None
    folder = case.project.data(case.dossier.data.name)
    return steps if folder.is_dir() and vars(dvc_pins.hash_dir(folder)) == steps[-1].after else None


def _commitments_after(case: VerificationContext, key: bytes, positions: Any, purged: list[DataErased]) -> Check:
    """`commitments`, where rows of the data set are gone: the rows that are here must be as recorded and, with the commitments to the
    removed rows, make up the old data set. The purge recomputed the retain set before it erased them.

    For a run that saw part of each class (`Dossier.per_class`), positions refer to that part, which can no longer be determined: every
    forgotten sample must be here or among the removed rows.
    """
    from megu.lineage.purged.erasures import makes_up, retained_positions

    name, scope, ids = "commitments", case.dossier.scope, _ids(case, whole=True)
    assert case.erasures is not None
    known = {commitment for entry in purged for commitment in entry.train.each()}
    parts, wrong = _each(case.opened.forgotten), []
    if case.dossier.per_class is None:
        here, gone = retained_positions(positions["forget"], purged)
        as_recorded = parts - known == {commit(key, bytes(value)) for value in ids[here]} - known
    else:
        gone = len(parts & known)
        as_recorded = parts <= known | {commit(key, bytes(value)) for value in ids}
    if not as_recorded:
        wrong.append("they are not the commitments to the forgotten samples")
    if not makes_up(key, ids, purged):
        wrong.append("what is here and what was erased do not make up the data set of the run")
    counts = {group: len(positions[group]) for group in ("forget", "retain", "test_forget", "test_retain")}
    wrong += differences({group: getattr(scope, group) for group in counts}, counts)
    rows = sum(len(entry.train.positions) for entry in purged)
    said = f"{scope.commitments:,} forgotten samples, {gone:,} of them among the {rows:,} rows {case.erasures.by(purged[-1])}"
    if case.erasures.witnessed(case.dossier.run.mlflow_run_id, case.seal.seal):
        return summed(name, wrong, [], f"{said}; the retain set was recomputed before")
    return summed(name, wrong, ["the retain set was not recomputed before rows of it were erased"], said)


def _each(commitments: bytes) -> set[bytes]:
    return {commitments[start : start + SIZE] for start in range(0, len(commitments), SIZE)}


def _ids(case: VerificationContext, *, whole: bool = False) -> Any:
    """Return the ids of the training images that the run saw (whole: of all there are); None where the data set is not here."""
    from megu.data import arrays

    if case.project is None:
        return None
    try:
        loaded = arrays.load(case.project.data(case.dossier.data.name))
    except MeguError:
        return None
    return arrays.limited(loaded, None if whole else case.dossier.per_class).train.ids


def files(case: VerificationContext) -> Check:
    """Check every file that a stage made, in the content store."""
    refs = {f"{record.label}/{name}": ref for record in case.records for name, ref in record.refs.items()}
    if case.project is None:
        return Check("files", None, f"the {len(refs)} files of the stages are not here")
    wrong, missing, erased, seen = [], [], list[str](), dict[Path, bool]()
    for name, ref in refs.items():
        path = case.project.store.path(ref)
        if not path.is_file():
            if (by := case.erased(ref.sha256)) is not None:
                erased.append(by)
            else:
                missing.append(f"{name} is not in the store")
            continue
        if path not in seen:
            seen[path] = case.project.store.holds(ref)
        if not seen[path]:
            wrong.append(f"{name} has changed ({path.name[:16]}…)")
    said = f"{len(refs) - len(erased)} files of the stages are unchanged"
    return case.without_erased("files", wrong, missing, erased, said)


def cached_results(case: VerificationContext) -> Check:
    """Check the cached results that later runs would use."""
    if case.project is None:
        return Check("cached results", None, "they are not here")
    wrong, missing, erased, again = [], [], list[str](), 0
    for record in case.records:
        path = case.project.results / record.key
        if not path.is_file():
            if (by := case.erased(case.dossier.results[record.label])) is not None:
                erased.append(by)
            else:
                missing.append(f"the cached result of {record.label} is gone")
        elif sha256_file(path) != case.dossier.results[record.label]:
            if not _made_again(path, record):
                wrong.append(f"the cached result of {record.label} has changed")
            again += 1
    said = f"{len(case.records) - len(erased)} cached results" + (f", {again} made again since" if again else "")
    return case.without_erased("cached results", wrong, missing, erased, said)


def _made_again(path: Path, record: Record) -> bool:
    """Return whether a cached result that is not the recorded file was made later and has the same content."""
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


def data(case: VerificationContext) -> Check:
    """Check every byte of the data set under ``data/``."""
    from megu.data import advice
    from megu.data import pins as dvc_pins
    from megu.data.arrays import FILES

    name, facts = "data", case.dossier.data
    folder = case.project.data(facts.name) if case.project else None
    if case.project is None or folder is None or not folder.is_dir():
        return Check(name, None, f"the data set {facts.name} is not here")
    found = dvc_pins.hash_dir(folder)
    if (found.md5, found.size, found.nfiles) == (facts.dvc_hash, facts.size, facts.nfiles):
        return Check(name, True, f"{facts.name} has the DVC hash {facts.dvc_hash}")
    if (more := advice.strays(folder)) and dvc_pins.hash_dir(folder, only=FILES).md5 == facts.dvc_hash:
        return Check(name, True, f"{facts.name} has the DVC hash {facts.dvc_hash}, though {advice.beside(facts.name, more)}")
    if (purged := _purged(case)) is not None and case.erasures is not None:
        rows = sum(len(entry.train.positions) + len(entry.test.positions) for entry in purged)
        erased = [case.erasures.by(purged[-1])] * rows
        return case.without_erased(name, [], [], erased, f"{facts.name} has the DVC hash {found.md5}, made of {facts.dvc_hash}")
    pinned = dvc_pins.read(case.project.root).get(facts.name)
    if pinned == found:
        return Check(name, None, f"data.dvc pins a newer version of {facts.name}; this run's was {facts.dvc_hash}")
    return Check(name, False, f"data/{facts.name} has the DVC hash {found.md5}, not {facts.dvc_hash}")


def dvc(case: VerificationContext) -> Check:
    """Check ``data.dvc`` and ``dvc.lock``: as committed at the recorded commit, and as they are now."""
    from megu.lineage.verify import versioned

    return versioned.check_pins(case)


def dvc_remotes(case: VerificationContext) -> Check:
    """Check that the configured DVC remotes are there."""
    from megu.lineage.verify import versioned

    return versioned.check_remotes(case)


def code(case: VerificationContext) -> Check:
    """Check the sources that the stages ran, by digest: as they are installed, or at the recorded commit."""
    from megu.lineage.verify import versioned

    return versioned.check_code(case)


def index(case: VerificationContext) -> Check:
    """Check the row of this run in the index, and the sets it refers to."""
    from megu.lineage.index import Index
    from megu.lineage.indexing import row_of

    if case.project is None or not case.at_home():
        return Check("index", None, "the index of the project is not here")
    kept = Index(case.project.index)
    row = kept.row(case.dossier.run.mlflow_run_id)
    if row is None:
        return Check("index", None, "this run is not in the index: `megu lineage index` rebuilds it")
    wrong = differences(vars(row_of(case.dossier, case.seal.seal, row.trained)), vars(row))
    missing = []
    for what, name in (("training", row.trained), ("forget", row.forgotten)):
        if not kept.path(name).is_file():
            missing.append(f"its {what} set is gone")
        elif sha256_file(kept.path(name)) != name:
            wrong.append(f"its {what} set has changed")
    key, ids = Keys(case.project.keys).commitment_key(), _ids(case)
    if key is not None and ids is not None and not wrong and (purged := _purged(case)) is not None:
        from megu.lineage.purged.erasures import before, makes_up

        ids = _ids(case, whole=True)
        if case.dossier.per_class is None:
            as_recorded = row.trained == purged[0].trained
        else:
            as_recorded = _each(kept.path(row.trained).read_bytes()) <= _each(before(key, ids, purged))
        if not as_recorded or not makes_up(key, ids, purged):
            wrong.append("its training set is not made up of what is here and what was erased")
    elif key is not None and ids is not None and not wrong and sha256(commit_all(key, (bytes(i) for i in ids))) != row.trained:
        data_moved = data(case).holds is not True
        (missing if data_moved else wrong).append(
            "its training set is not that of the data set as the run saw it (`megu lineage index` rebuilds it)"
        )
    return summed("index", wrong, missing, "the samples this run saw are indexed")
