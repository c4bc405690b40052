"""The results of a finished cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from megu.evaluation.summary import SPENT

Numbers = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CellScore:
    """One cell's numbers, or its error.

    original, unlearned, reference: metrics by name, in percent, entropies in nats; whatever the evaluation gives. comparison: of the
    unlearned model with the retrain (gap, ToW, JS_forget, …). swept: the swept key and value. seconds: by stage, each when it was computed,
    the computation alone where the stage timed it. time_share, pass_share: of noise and unlearning in percent of the retrain's time and of
    its passes (images through the network forward and backward). peak_mib: the most memory that a training stage held
    (`megu.core.device.Cost`). computed, kept: stages that ran in this benchmark's run, and that were cached. weights: digests by model.
    retrain: the retrain's title (`megu.evaluation.text.retrain_title`).
    """

    method: str
    algorithm: str
    target: str
    seed: int
    swept: tuple[str, Any] | None = None
    original: Numbers = field(default_factory=dict)
    unlearned: Numbers = field(default_factory=dict)
    reference: Numbers = field(default_factory=dict)
    comparison: Numbers = field(default_factory=dict)
    seconds: Numbers = field(default_factory=dict)
    time_share: float | None = None
    pass_share: float | None = None
    peak_mib: float | None = None
    computed: int = 0
    kept: int = 0
    weights: Mapping[str, str] = field(default_factory=dict)
    retrain: str = "true retrain"
    error: str | None = None
    mlflow_run_id: str = ""

    @property
    def point(self) -> str:
        """The swept value for a table; "" outside a sweep."""
        return f"{self.swept[0]}={self.swept[1]}" if self.swept else ""

    @property
    def own_seconds(self) -> float | None:
        """The seconds of the unlearning: of its noise, where it has any, and itself."""
        return sum(self.seconds.get(name, 0.0) for name in SPENT) if "unlearn" in self.seconds else None

    def numbers(self) -> dict[str, float]:
        """Return everything that is averaged over seeds, by name."""
        own = {
            "seconds": self.own_seconds,
            "time_share": self.time_share,
            "pass_share": self.pass_share,
            "peak_mib": self.peak_mib,
        }
        return {**self.unlearned, **self.comparison, **{name: value for name, value in own.items() if value is not None}}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CellScore:
        swept = value.get("swept")
        return cls(**{**value, "swept": tuple(swept) if swept else None})


def numeric(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of an evaluation by name, those of a nested section joined by a dot; anything that is not a number (None, say) is
    left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(numeric(value, f"{prefix}{name}."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


def finished(marks: Sequence[CellScore]) -> list[CellScore]:
    """Return those without an error."""
    return [mark for mark in marks if mark.error is None]
