"""A small dossier by hand, for what only reads one: no training, no server, but every field, a chain that holds and a real seal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from megu.core.files.store import Ref, canonical_json
from megu.core.stages import Result
from megu.evaluation.gate import GateParams, decide
from megu.evaluation.text import headline
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import commit_all, fingerprint
from megu.lineage.dossier import FORGOTTEN, RECORDS, Dossier, sha256
from megu.lineage.purged.document import Covered, Location, Purge, sealed
from megu.lineage.reading import Found
from megu.lineage.record import Record, build, from_lines, root, to_lines

SECRET = b"k" * 32
SIGNING = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
RUN = "0123456789abcdef0123456789abcdef"
FLOW = "11111111-2222-3333-4444-555555555555"
METRICS = {
    "original": {"Af": 97.0, "Ar": 90.8, "MIA": 15.8, "test_accuracy": 91.5, "Af_train": 98.0},
    "unlearned": {"Af": 0.0, "Ar": 91.3, "MIA": 57.2, "test_accuracy": 82.2, "Af_train": 0.0},
    "reference": {"Af": 0.0, "Ar": 91.4, "MIA": 58.6, "test_accuracy": 82.3, "Af_train": 0.0},
}


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def stage(
    label: str, parents: list[Record], files: tuple[str, ...] = (), more: Mapping[str, Any] | None = None, **values: Any
) -> Record:
    """One record, made at noon within three seconds. more: parts of its key."""
    inputs = {f"input {parent.label}": parent.result_digest for parent in parents}
    parts = {"format": 1, f"code tasks.{label}": digest("code"), "seed": 0, **inputs, **(more or {})}
    made = {name: Ref("safetensors" if name == "weights" else "npz", digest(f"{label}/{name}"), 10) for name in files}
    origin = {"created": "2026-11-24T12:00:03+00:00", "flow_run_id": FLOW, "mlflow_run_id": RUN, "git.commit": "c" * 40}
    key = f"{label}-{hashlib.sha256(canonical_json(parts)).hexdigest()[:40]}"
    happened = {
        "cached": False,
        "seconds": 3.0,
        "seconds_computed": 3.0,
        "notes": {},
        "origin": origin,
        "origin_run": None,
    }
    return build(label, key, Result(label, parts, made, values, {}, 3.0, origin), parents, happened, SECRET)


def records() -> list[Record]:
    data = stage("dataset", [], name="photos", dvc_hash="d" * 32 + ".dir", source="somewhere", licence="MIT")
    split = stage("split", [data], ("positions",), scenario="class", classes=["Sneaker"])
    original = stage("original", [data], ("weights",), weights_digest=digest("original"))
    labeling = stage("labeling", [data], ("labeling",), labeler=LABELER)
    given = {"method": "megu", "params.alpha": 0.7}
    weights = {"weights_digest": digest("unlearned")}
    unlearned = stage("unlearn", [data, split, original, labeling], ("weights",), given, **weights)
    return [data, split, original, labeling, unlearned, stage("evaluation", [unlearned], **evaluation())]


LABELER = {"kind": "prototype labeler, not an LLM", "name": "prototype", "version": "1", "digest": digest("labeler")}


def evaluation(reference: bool = True) -> dict[str, Any]:
    models = METRICS if reference else {name: METRICS[name] for name in ("original", "unlearned")}
    return {name: {"metrics": metrics, "per_class": [90.0, None]} for name, metrics in models.items()}


def dossier(**changes: Any) -> Dossier:
    """changes: other values for its fields, those of a part of it as a mapping."""
    chain = records()
    forgotten = commit_all(SECRET, [b"a" * 32, b"b" * 32])
    judged = evaluation()
    verdict = decide(judged, GateParams(), champion=None)
    fields: dict[str, Any] = {
        "format": folder_of.FORMAT,
        "root": root(chain),
        "files": {RECORDS: sha256(to_lines(chain)), FORGOTTEN: sha256(forgotten)},
        "run": {
            "mlflow_run_id": RUN,
            "experiment": "1",
            "name": "forget Sneaker",
            "prefect_flow_run_id": FLOW,
            "created": "2026-11-24T12:00:05.000000+00:00",
        },
        "request": {"words": "Sneaker", "scenario": "class", "classes": ["Sneaker"], "ids": [], "files": []},
        "scope": {
            "scenario": "class",
            "forget": 2,
            "retain": 8,
            "test_forget": 1,
            "test_retain": 9,
            "split": chain[1].refs["positions"].sha256,
            "through_dvc": False,
            "dvc": None,
            "locked": None,
            "key": fingerprint(SECRET),
            "commitments": 2,
            "retained": digest("retained"),
        },
        "data": {
            "name": "photos",
            "dvc_hash": "d" * 32 + ".dir",
            "size": 100,
            "nfiles": 6,
            "source": "somewhere",
            "licence": "MIT",
            "train": 10,
            "test": 10,
            "pin": None,
            "files": {},
        },
        "models": {
            "original": chain[2].refs["weights"].sha256,
            "original_digest": digest("original"),
            "given": False,
            "unlearned": chain[4].refs["weights"].sha256,
            "unlearned_digest": digest("unlearned"),
        },
        "labeler": LABELER,
        "method": {"name": "megu", "title": "Teach what a labeler says", "paper": "arXiv 2602.17088"},
        "parameters": {"seed": 0, "unlearn": {"method": "megu", "alpha": 0.7}, "forget": {"ids": []}},
        "environment": {
            "git.commit": "c" * 40,
            "git.dirty": "false",
            **{f"version.{name}": "1.0" for name in ("megu", "torch", "numpy", "prefect", "mlflow")},
        },
        "device": {"asked": "cpu", "class": "cpu", "name": "a processor"},
        "seeds": {"run": 0, "labeling": 0, "retrains": 1},
        "evidence": {
            "evaluation": judged,
            "thresholds": asdict(GateParams()),
            "reference": "true retrain, seed 0",
            "verdict": headline("Sneaker", judged, verdict.failures),
            "failures": verdict.failures,
            "gate": {"champion": None, "decision": verdict.decision, "rules": [asdict(rule) for rule in verdict.rules]},
        },
        "claim": {"level": "empirical", "limits": list(folder_of.claim("megu", False).limits)},
        "results": {record.label: digest(record.label) for record in chain},
        "previous": {"mlflow_run_id": "f" * 32, "seal": digest("previous")},
        "tracked": {
            "run": {"started": 1795521600000, "metrics": judged["unlearned"]["metrics"]},
            "artifacts": {},
            "version": {"name": "megu", "version": "2", "source": "models:/m-1"},
            "alias": "challenger",
        },
    }
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(value, Mapping) and isinstance(fields[name], dict) else value
    return folder_of.parse(canonical_json(fields), "a dossier made by hand")


def found(*, signed: bool = True, purges: Sequence[bytes] = (), **changes: Any) -> Found:
    """The dossier as it is read. purges: documents that came to lie beside it."""
    made = dossier(**changes)
    files = folder_of.sealed(made, to_lines(records()), commit_all(SECRET, [b"a" * 32, b"b" * 32]), SIGNING if signed else None)
    seal = folder_of.parse_seal(files[folder_of.SEAL], "its seal")
    return Found(made, from_lines(files[RECORDS], RECORDS), seal, files, purges)


def purge_document(*surfaces: tuple[str, str, str], key: Ed25519PrivateKey = SIGNING) -> bytes:
    """A purge that says this of each surface (name, verdict, in words), signed."""
    purge = Purge(
        format=1,
        created="2026-11-24T12:00:00+00:00",
        previous=None,
        key=fingerprint(SECRET),
        policy={"models_days": 30},
        covers=[Covered(mlflow_run_id=RUN, seal="s", request="Sneaker", forgotten="f")],
        data=[],
        witnessed=[],
        erased=[],
        retained=[],
        residual=[],
        surfaces=[Location(name=name, verdict=verdict, says=says) for name, verdict, says in surfaces],
        looked={"samples": 1},
        environment={},
    )
    return sealed(purge, key).to_bytes()


def written(folder: Path, dossier: Found) -> Path:
    """The dossier as a folder, as it is handed to someone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in dossier.files.items():
        (folder / name).write_bytes(content)
    return folder


def main_of(dossier: Found) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(dossier.files[folder_of.MAIN])
    return value
