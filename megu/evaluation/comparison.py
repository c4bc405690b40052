"""Several models of one request side by side: the original, the unlearned model and the retrains, in the format of an evaluation's values.

`megu.evaluation.gate` judges by these values, and a dossier stores them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from megu import evaluation
from megu.evaluation import Score, held_out
from megu.evaluation.condensed import Condensed

if TYPE_CHECKING:
    from megu.data.arrays import Dataset
    from megu.data.splits import ForgetSplit

#: A model's metrics, and the answers they were computed from.
Scored = tuple[Score, Condensed]


def described(
    whole: Dataset, measured: Dataset, split: ForgetSplit, unlearned: Scored, original: Scored | None = None
) -> dict[str, Any]:
    """Return what was measured, and the scores of each model. whole: the data set. measured, split: restricted to the test images on which
    metrics are measured (`megu.unlearning.labels.calibration_set.left_to_measure`)."""
    left_out = len(whole.test) - len(measured.test)
    return {
        "classes": list(measured.classes),
        evaluation.AF_ON: evaluation.measured_on(split),
        evaluation.TEST_IMAGES: {"measured": len(measured.test), "calibration": left_out},
        **{
            name: {"metrics": score.metrics, "per_class": score.per_class}
            for name, (score, _) in _named(unlearned, original).items()
        },
    }


def alone(
    values: Mapping[str, Any], unlearned: Scored, measured: Dataset, split: ForgetSplit, original: Scored | None = None
) -> dict[str, Any]:
    """Return what can be measured without a retrain, to be added to ``values`` (`described`): the models on held-out images, and by class
    on the retained test images."""
    test, count = measured.test.labels, measured.num_classes
    chosen = held_out.of(measured, split)
    made: dict[str, Any] = {held_out.HELD_OUT: held_out.counts(split, chosen, test, count)}
    for name, (_, said) in _named(unlearned, original).items():
        made[name] = {
            **values[name],
            "metrics": {**values[name]["metrics"], **held_out.score(said, test, split, chosen)},
            "per_class_retained": held_out.per_class(said.test, test, split, count),
        }
    return made


def against(unlearned: Scored, retrains: Sequence[Scored], original: Scored | None = None) -> dict[str, Any]:
    """Compare the unlearned model, the original and the other retrains with the first retrain, and return the retrains' spread.

    The first retrain has the run's own seed, on which the claims of the method rest; the spread says how much that varies.
    """
    (first, said), metrics = retrains[0], [score.metrics for score, _ in retrains]

    def to_first(scored: Scored) -> dict[str, float]:
        return evaluation.compared(scored[0].metrics, scored[1], first.metrics, said)

    comparison = to_first(unlearned)
    if original is not None:
        comparison |= {f"{name}_original": value for name, value in to_first(original).items()}
    if len(retrains) > 1:
        others = evaluation.mean_of([to_first(other) for other in retrains[1:]])
        comparison |= {f"{name}_reference": value for name, value in others.items()}
    return {
        "reference": {
            "metrics": evaluation.mean_of(metrics),
            "per_class": np.mean([score.per_class for score, _ in retrains], axis=0).tolist(),
        },
        "comparison": comparison,
        "spread": evaluation.spread(metrics) if len(metrics) > 1 else {},
    }


def _named(unlearned: Scored, original: Scored | None) -> dict[str, Scored]:
    return ({} if original is None else {"original": original}) | {"unlearned": unlearned}
