"""The summary of a run, as the command line prints it and as ``--json`` returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from megu.core.params import STRICT
from megu.evaluation.gate import Verdict

#: The stages whose time and passes belong to the method itself, to compare with the retrain's.
SPENT = ("noise", "unlearn")


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run. seconds: how long it took in this run. computed_seconds: how long it took when it was computed.

    peak_memory_bytes: the most memory held then (`megu.core.device.Cost`); None where it is not measured.
    """

    name: str
    hit: bool
    seconds: float
    computed_seconds: float
    why: str
    says: str
    peak_memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "cache": "hit" if self.hit else "miss",
            "seconds": round(self.seconds, 3),
            "computed_seconds": round(self.computed_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One run of a ladder (`megu.promotion.ladder`), or why there was none.

    number: from 1. params: the method's own. outcome: the gate's decision, "skipped" or "error". says: the gate's reasons, or why. metrics:
    of the unlearned model, as in `Summary`. seconds: of the whole run, up to the signing of its dossier; compute_seconds, passes: of noise
    and unlearning alone, when they were computed. mlflow_run_id, seal: of its dossier; in that dossier itself the seal is empty. version:
    the registered version (``models:/name/3``), empty without one.
    """

    __pydantic_config__ = STRICT

    number: int
    method: str
    params: dict[str, Any]
    outcome: str
    says: list[str]
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compute_seconds: float = 0.0
    passes: int = 0
    mlflow_run_id: str = ""
    seal: str = ""
    version: str = ""

    @property
    def ran(self) -> bool:
        return bool(self.mlflow_run_id)


@dataclass(frozen=True)
class Summary:
    """A finished run. metrics, original and reference are in percent, entropies in nats. reference: the mean over the retrains, None
    without any. spread: the 95% intervals when there were at least two retrains. comparison: with the first retrain
    (`megu.evaluation.compared`). af_on: "train" where Af is, for want of test images, measured on the forgotten training images. champion:
    the version that was the champion when the gate decided. time_share, pass_share: see `tasks.records.record.share`. given_reference: SHA-256
    of the weights of a retrain that was not trained here. advice: what to try where it has not forgotten. caveats: sentences on what was
    declared and cannot be checked. ladder: the rungs up to this run, empty outside a ladder."""

    headline: str
    stages: Sequence[StageSummary]
    metrics: Mapping[str, float]
    original: Mapping[str, float]
    reference: Mapping[str, float] | None
    spread: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    comparison: Mapping[str, float | None] = field(default_factory=dict)
    gap: float | None = None
    af_on: str = "test"
    advice: str = ""
    gate: Verdict | None = None
    champion: str | None = None
    time_share: float | None = None
    pass_share: float | None = None
    flow_seconds: float = 0.0
    mlflow_run_id: str = ""
    mlflow_url: str | None = None
    prefect_flow_run_id: str = ""
    prefect_url: str | None = None
    model_version: str | None = None
    report: str = ""
    dossier: str = ""
    caveats: Sequence[str] = ()
    given_reference: str | None = None
    ladder: Sequence[Rung] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "headline": self.headline,
            "stages": [stage.to_json() for stage in self.stages],
            "metrics": dict(self.metrics),
            "original": dict(self.original),
            "reference": dict(self.reference) if self.reference is not None else None,
            "reference_given": self.given_reference,
            "reference_spread": {name: dict(entry) for name, entry in self.spread.items()},
            "comparison": dict(self.comparison),
            "gap": self.gap,
            "Af_on": self.af_on,
            "advice": self.advice or None,
            "gate": asdict(self.gate) if self.gate else None,
            "champion": self.champion,
            "time_share": self.time_share,
            "pass_share": self.pass_share,
            "flow_seconds": round(self.flow_seconds, 3),
            "mlflow_run_id": self.mlflow_run_id,
            "prefect_flow_run_id": self.prefect_flow_run_id,
            "model_version": self.model_version,
            "report": self.report,
            "dossier": self.dossier,
            "ladder": [asdict(rung) for rung in self.ladder],
        }
