"""Measure what a model still knows about the forget set, and decide whether that is acceptable."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from megu import evaluation
from megu.api.request import Split, calibrating
from megu.core.device import resolve
from megu.core.errors import MeguError
from megu.core.files.store import without_nan
from megu.data.arrays import Dataset
from megu.data.tensors import ImageSet
from megu.evaluation import own
from megu.evaluation.comparison import Scored, against, alone, described
from megu.evaluation.condensed import condense
from megu.evaluation.gate import GateParams, Verdict, decide
from megu.models.foreign import adopt, check_output
from megu.training.loop import predict
from megu.unlearning.labels.calibration_set import left_to_measure


@dataclass(frozen=True)
class Evaluation:
    """An evaluation. values: in the form of the pipeline's evaluation, for `megu.gate`; an undefined value is None."""

    values: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, float | None]:
        """The model's metrics by name: accuracies and attacks in percent, entropies in nats. `megu.evaluation.guide` has the right value
        of each."""
        return dict(self.values["unlearned"]["metrics"])

    @property
    def reference(self) -> dict[str, float | None] | None:
        """The retrain's metrics, or None without a retrain."""
        return dict(self.values["reference"]["metrics"]) if "reference" in self.values else None

    @property
    def gap(self) -> float | None:
        """Mean absolute difference from the retrain over Ar, Af and MIA, in points; None without a retrain."""
        found: float | None = self.values.get("comparison", {}).get("gap")
        return found


def evaluate(
    model: nn.Module,
    data: Dataset,
    split: Split,
    reference: nn.Module | None = None,
    *,
    original: nn.Module | None = None,
    calibration: float = 0.3,
    device: str = "auto",
) -> Evaluation:
    """Measure an unlearned model, and compare it with a true retrain.

    Parameters
    ----------
    model, reference, original: take normalised images, float32 (B, C, H, W), and return logits (B, K). reference: trained from scratch
        without the forget set; an unlearned model should behave like this one. original: the model before unlearning, which the gate
        requires.
    split: what was forgotten from ``data`` (`megu.forget`).
    calibration: the share of the test images that were used for calibration (`megu.unlearn`) and are excluded from every metric, in
        [0, 0.9].

    Raises
    ------
    MeguError: the split belongs to another data set, or a model does not fit the data.
    """
    if split.data is not data:
        raise MeguError("the split belongs to another data set", "make it with megu.forget(data, …) from this one")
    measured, left, positions = left_to_measure(data, split.positions, calibrating(calibration))
    on = resolve(device)
    parts = [ImageSet.from_partition(part, data.mean, data.std, on) for part in (data.train, data.test)]

    def scored(given: nn.Module | None, name: str) -> Scored | None:
        if given is None:
            return None
        network = adopt(copy.deepcopy(given).to(on), name)
        check_output(network, name, data.num_classes, (data.channels, *data.image_size))
        train, test = (predict(network, part, label=f"predict by {name}").logits.numpy() for part in parts)
        said = condense(train, test[measured], positions.forget)
        asked = (said, left.train.labels, left.test.labels, positions)
        found = evaluation.score(*asked, data.num_classes, data.train.fine)
        return replace(found, metrics={**found.metrics, **own.measured(*asked)}), said

    unlearned = scored(model, "the model")
    assert unlearned is not None
    before, retrain = scored(original, "the original"), scored(reference, "the reference")
    values = described(data, left, positions, unlearned, before)
    values |= against(unlearned, [retrain], before) if retrain else alone(values, unlearned, left, positions, before)
    return Evaluation(without_nan(values))


def gate(evaluation: Evaluation, *, champion: str | None = None, **thresholds: Any) -> Verdict:
    """Apply the gate's rules to an evaluation, as the pipeline does before a model may be promoted.

    champion: the version that would be replaced; without one the best verdict is "needs a person". thresholds: as in the section ``gate``
    of ``params.yaml``, such as ``forget_margin=2.0``, in points.

    Raises `MeguError` for a threshold that does not exist or is out of range.
    """
    try:
        return decide(evaluation.values, GateParams(**thresholds), champion=champion)
    except (TypeError, ValueError) as error:
        raise MeguError(f"gate: {error}", "change that threshold") from None
