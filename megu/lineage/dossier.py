"""The dossier: a folder that states what a run did, in a form that can be checked without the project it was made in.

``dossier.json`` holds the facts and the hashes of the two files beside it: ``records.jsonl`` (one record per stage,
`megu.lineage.record`) and ``forgotten.hmac`` (commitments to the forgotten samples, `megu.lineage.commitments`). ``seal.json`` holds
the hash of ``dossier.json`` (the seal) and, if the dossier is signed, the signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.params import STRICT
from megu.evaluation.gate import Decision, RuleResult
from megu.evaluation.summary import Rung
from megu.lineage.record import newer_is_refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from pydantic import TypeAdapter

#: Incremented when the contents of a dossier change. 1: a verdict in words by two thresholds; 2: the gate's; 3: the gate's, also
#: without a retrain; 4: the rungs of a ladder.
FORMAT = 4

MAIN, RECORDS, FORGOTTEN, SEAL = "dossier.json", "records.jsonl", "forgotten.hmac", "seal.json"
NAMES = (MAIN, RECORDS, FORGOTTEN, SEAL)

JSON = Any
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The run. created: when the dossier was sealed (UTC)."""

    __pydantic_config__ = STRICT

    mlflow_run_id: str
    experiment: str
    name: str
    prefect_flow_run_id: str
    created: str


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is forgotten, as counts and commitments.

    scenario, forget, retain, test_forget, test_retain: the kind of the request, and the number of images in each group.
    split: SHA-256 of the positions. through_dvc: whether ``dvc.lock`` pins them, with the hash dvc.
    locked: a commitment to the parameters in ``dvc.lock``.
    key: fingerprint of the commitment key. commitments: number of distinct samples in ``forgotten.hmac``.
    retained: one commitment to the ids of the whole retain set.
    """

    __pydantic_config__ = STRICT

    scenario: str
    forget: int
    retain: int
    test_forget: int
    test_retain: int
    split: str
    through_dvc: bool
    dvc: str | None
    locked: str | None
    key: str
    commitments: int
    retained: str


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data set. dvc_hash, size, nfiles: as DVC has them. pin: its entry in ``data.dvc``. files: SHA-256 of ``data.dvc`` and
    ``dvc.lock`` at the time of the run."""

    __pydantic_config__ = STRICT

    name: str
    dvc_hash: str
    size: int
    nfiles: int
    source: str
    licence: str
    train: int
    test: int
    pin: dict[str, JSON] | None
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Weights, by the SHA-256 of the file and by `megu.training.weights.digest`. given: the original came from outside, so only its
    supplier knows what it was trained on."""

    __pydantic_config__ = STRICT

    original: str
    original_digest: str
    given: bool
    unlearned: str
    unlearned_digest: str


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate's decision (`megu.evaluation.gate`). champion: the version that held the alias at that time; None without one."""

    __pydantic_config__ = STRICT

    champion: str | None
    decision: Decision
    rules: list[RuleResult]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured, and the verdict on it.

    evaluation: every metric, of original, unlearned and reference. thresholds: those applied. reference: what it was compared with.
    verdict: one sentence. failures: what the thresholds do not allow; empty when nothing fails. gate: None in format 1.
    """

    __pydantic_config__ = STRICT

    evaluation: dict[str, JSON]
    thresholds: dict[str, JSON]
    reference: str
    verdict: str
    failures: list[str]
    gate: Gate | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """level: "exact" or "empirical". limits: what is not claimed, in plain words."""

    __pydantic_config__ = STRICT

    level: str
    limits: list[str]


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The dossier before this one in the chain of the registered model."""

    __pydantic_config__ = STRICT

    mlflow_run_id: str
    seal: str


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """The state of MLflow when the dossier was sealed: the run (`megu.tracking.lineage.run_facts`), the SHA-256 of each of its
    artifacts, the registered version (`megu.tracking.lineage.version_facts`) and the alias assigned to it."""

    __pydantic_config__ = STRICT

    run: dict[str, JSON]
    artifacts: dict[str, str]
    version: dict[str, JSON] | None
    alias: str | None


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """Everything a run claims. files: SHA-256 of the files beside it. results: SHA-256 of each cached result's record, by label.

    ladder: every rung up to and including this run; empty when the run was on no ladder, and before format 4.
    """

    __pydantic_config__ = STRICT

    format: int
    root: str
    files: dict[str, str]
    run: RunFacts
    request: dict[str, JSON]
    scope: Scope
    data: DataFacts
    models: ModelFacts
    labeler: dict[str, JSON] | None
    method: dict[str, JSON]
    parameters: dict[str, JSON]
    environment: dict[str, str]
    device: dict[str, str]
    seeds: dict[str, int]
    evidence: Evidence
    claim: Claim
    results: dict[str, str]
    previous: Previous | None
    tracked: Tracked
    ladder: list[Rung] = field(default_factory=list)

    @property
    def per_class(self) -> int | None:
        """Training images of each class that the run saw (`megu.data.arrays.limited`); None for all, or where no limit is recorded."""
        found = (self.parameters.get("data") or {}).get("per_class")
        return found if isinstance(found, int) else None

    def to_bytes(self) -> bytes:
        """Return canonical JSON: the bytes that are hashed and signed."""
        return canonical_json(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Seal:
    """seal: SHA-256 of ``dossier.json``. signed: whether ``signature`` (hex) by the key ``public`` (hex) is there; else both are None."""

    __pydantic_config__ = STRICT

    format: int
    seal: str
    signed: bool
    public: str | None
    signature: str | None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(dossier: Dossier, records: bytes, forgotten: bytes, key: Ed25519PrivateKey | None) -> dict[str, bytes]:
    """Return the files of the folder, by name."""
    from megu.lineage.keys import public_of, sign

    content = dossier.to_bytes()
    seal = Seal(
        format=FORMAT,
        seal=sha256(content),
        signed=key is not None,
        public=public_of(key) if key else None,
        signature=sign(key, content) if key else None,
    )
    return {MAIN: content, RECORDS: records, FORGOTTEN: forgotten, SEAL: canonical_json(asdict(seal))}


def parse(content: bytes, where: str) -> Dossier:
    """Read a ``dossier.json``.

    Raises `megu.lineage.record.Newer` for a newer format, `MeguError` for a truncated file, an unknown field or a value of the wrong type.
    """
    dossier = _known(Dossier, content, where)
    if (dossier.evidence.gate is None) != (dossier.format == 1):
        raise MeguError(f"{where}: the field evidence.gate is not of format {dossier.format}", "it is not as megu wrote it")
    return dossier


def parse_seal(content: bytes, where: str) -> Seal:
    """Read a ``seal.json``; raises as `parse` does."""
    seal = _known(Seal, content, where)
    if seal.signed != (seal.public is not None) or seal.signed != (seal.signature is not None):
        raise MeguError(f"{where} has only half of a signature", "it is not as megu wrote it")
    return seal


def _known(kind: type[T], content: bytes, where: str) -> T:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise MeguError(f"{where} is cut off or not JSON ({error})", "get the file again") from None
    if not isinstance(value, Mapping):
        raise MeguError(f"{where} is not a dossier file", "name a folder that megu wrote")
    newer_is_refused(value.get("format"), FORMAT, where)
    return strict(kind, content, where)


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Cached: building an adapter takes longer than everything else that verifying a dossier computes."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def strict(kind: type[T], content: bytes, where: str) -> T:
    """Parse JSON into a strict dataclass; raise `MeguError` naming the field that is unknown, missing or of the wrong type."""
    from pydantic import ValidationError

    try:
        found: T = _adapter(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
        return found
    except ValidationError as failed:
        first = failed.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        known = {"unexpected_keyword_argument": "is unknown", "extra_forbidden": "is unknown", "missing": "is missing"}
        said = known.get(first["type"], f"is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}")
        raise MeguError(f"{where}: the field {field} {said}", "it is not as megu wrote it") from None


def read(folder: Path) -> dict[str, bytes]:
    """Return the files present in a folder, by name, including any that should not be there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


#: Stated wherever ``train.pretrained`` is declared.
PRETRAINED = "every network begins with weights made elsewhere: that they never saw this data set is their user's word"


def describe_provided_retrain(weights: str) -> str:
    """Return what is stated wherever the retrain came from outside. weights: their SHA-256."""
    return (
        f"the retrain was given (weights SHA-256 {weights}), not trained here: "
        "that it never saw the forgotten images is its giver's word"
    )


#: Stated wherever there was no retrain.
NO_RETRAIN = (
    "no model that never saw the forgotten images was there to compare with: what was judged was judged by the original, by chance and by "
    "held-out images of the same classes, which is less"
)


def claim(method: str, given: bool, pretrained: bool = False, retrain: str | None = None, alone: bool = False) -> Claim:
    """Return what a run may claim. given: the original model came from outside. pretrained: every network starts from weights made
    elsewhere. retrain: the SHA-256 of the weights of a retrain that came from outside. alone: there was no retrain."""
    words = [
        *([PRETRAINED] if pretrained else []),
        *([describe_provided_retrain(retrain)] if retrain else []),
        *([NO_RETRAIN] if alone else []),
    ]
    if method == "retrain":
        limits = [
            "exact: the model was trained from fresh weights on the retain set alone, so the forgotten images had no part in it",
            *words,
            "this says nothing of copies of the images elsewhere, nor of models made earlier",
        ]
        return Claim(level="exact", limits=limits)
    limits = [
        "empirical: the model was changed to behave as if it had not seen the forgotten images, and measured; it is no proof",
        "what is measured is accuracy and one entropy attack; a stronger attack may still tell that an image was in training",
        "no certificate in the sense of differential privacy or certified removal is claimed",
        "this says nothing of copies of the images elsewhere, nor of models made earlier",
        *words,
    ]
    if given:
        limits.append("the original model was given: that it was trained on this data set is its giver's word")
    return Claim(level="empirical", limits=limits)
