"""What a model still knows of the forget set, what it retained of the rest, and what an attacker sees (METHOD: evaluation protocol).

Accuracies and MIA are in percent, entropies in nats. `megu.evaluation.guide` says for each metric which value is right and why. This module
needs only a model's answers; `megu.evaluation.attacks.shadows` (a per-sample attack) needs those of shadow models too, and
`megu.evaluation.relearning` (how soon everything is back) and `megu.evaluation.deep` (what is left below the last layer) train networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.evaluation.attacks.entropy import members_called, svm
from megu.evaluation.statistics import interval

if TYPE_CHECKING:
    from megu.data.splits import ForgetSplit
    from megu.evaluation.condensed import Condensed

Floats = NDArray[np.float64]

#: The metrics whose mean absolute difference to the retrain is the headline.
HEADLINE = ("Ar", "Af", "MIA")
#: The key of an evaluation's values that holds the result of `measured_on`. Evaluations by older versions do not have it.
AF_ON = "Af_on"
#: The key for how many test images every metric is measured on (``measured``), and how many are set aside for calibration (``calibration``).
TEST_IMAGES = "test_images"


@dataclass(frozen=True)
class Score:
    """One model's scores.

    metrics: Ar, Af (test images; where what is forgotten has none, Af is on the forgotten training images: `measured_on`), Ar_train,
    Af_train, test_accuracy, MIA, MIA_SVM in percent; entropy_forget, entropy_retain, entropy_test in nats (means). Where single samples are
    forgotten beside whole classes, Af_single is Af_train of these samples alone, which the classes would outnumber. per_class: test
    accuracy by class in percent, NaN for a class without test images. confidence, entropy: float32 per sample, for the groups "forget" and
    "retain" (training) and "test", as the attack sees them.
    """

    metrics: dict[str, float]
    per_class: list[float]
    confidence: dict[str, NDArray[np.float32]]
    entropy: dict[str, NDArray[np.float32]]


def score(
    said: Condensed,
    train_labels: NDArray[Any],
    test_labels: NDArray[Any],
    split: ForgetSplit,
    num_classes: int,
    fine: NDArray[Any] | None = None,
) -> Score:
    """Score a model by its predictions for the forget set of ``split``. Labels (N,), (M,) of the whole training and test split.

    fine: the finer labels (N,) of the training split, where the data set has some.
    """
    right_train = said.predicted == train_labels
    right_test = said.test.argmax(1) == test_labels
    test = softmax(said.test)
    groups = {"forget": split.forget, "retain": split.retain}
    entropy = {**{name: said.entropy[at] for name, at in groups.items()}, "test": entropies(test)}
    confidence = {**{name: said.confidence[at] for name, at in groups.items()}, "test": test.max(axis=1).astype(np.float32)}
    af_train = percent(right_train[split.forget])
    single = single_samples(split.forget, train_labels, fine)
    metrics = {
        "Ar": percent(right_test[split.test_retain]),
        "Af": percent(right_test[split.test_forget]) if len(split.test_forget) else af_train,
        "Ar_train": percent(right_train[split.retain]),
        "Af_train": af_train,
        "test_accuracy": percent(right_test),
        "MIA": members_called(entropy["retain"], entropy["test"], entropy["forget"]),
        "MIA_SVM": members_called(entropy["retain"], entropy["test"], entropy["forget"], svm),
        **{f"entropy_{name}": float(values.mean()) for name, values in entropy.items()},
    }
    if 0 < len(single) < len(split.forget):
        metrics["Af_single"] = percent(right_train[single])
    return Score(
        metrics=metrics,
        per_class=[percent(right_test[test_labels == k]) for k in range(num_classes)],
        confidence=confidence,
        entropy={name: values.astype(np.float32) for name, values in entropy.items()},
    )


def measured_on(split: ForgetSplit) -> str:
    """Return the images on which Af is measured: "test", or "train" where what is forgotten has no test images."""
    return "test" if len(split.test_forget) else "train"


def single_samples(forget: NDArray[Any], labels: NDArray[Any], fine: NDArray[Any] | None) -> NDArray[Any]:
    """Return the forgotten training samples of whose class (and finer class, where there is one) others stay; positions, ascending."""
    chosen = np.asarray(forget)
    for names in (labels, fine):
        if names is not None:
            left = np.bincount(names) - np.bincount(np.asarray(names)[forget], minlength=int(np.max(names)) + 1)
            chosen = chosen[left[np.asarray(names)[chosen]] > 0]
    return chosen


def percent(right: NDArray[np.bool_]) -> float:
    """Return the share of True in percent; NaN for an empty array."""
    return 100.0 * float(right.mean()) if len(right) else float("nan")


def softmax(logits: NDArray[Any]) -> Floats:
    """Compute the softmax of each row, float64 (N, K)."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def entropies(probabilities: Floats) -> Floats:
    """Compute the entropy of each row in nats (N,); 0 log 0 is 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    result: Floats = -(probabilities * logs).sum(axis=1)
    return result


def gap(metrics: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Return the mean absolute difference from the retrain over Ar, Af and MIA, in points."""
    return float(np.mean([abs(metrics[name] - reference[name]) for name in HEADLINE]))


def tow(metrics: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Return the tug of war (Zhao et al. 2024): product of 1 - |accuracy - retrain's| on forget, retain and test, in [0, 1]; 1 is best."""
    names = ("Af_train", "Ar_train", "test_accuracy")
    return float(np.prod([1 - abs(metrics[name] - reference[name]) / 100 for name in names]))


def js_divergence(logits: NDArray[Any], reference_logits: NDArray[Any]) -> float:
    """Return the Jensen-Shannon divergence of two models' outputs in nats: summed over classes, averaged over samples; in [0, ln 2]."""
    p, q = softmax(logits), softmax(reference_logits)
    return float(np.mean(entropies((p + q) / 2) - (entropies(p) + entropies(q)) / 2))


def compared(
    metrics: Mapping[str, float], said: Condensed, reference: Mapping[str, float], reference_said: Condensed
) -> dict[str, float]:
    """Compare a model with a retrain on the same forget set: gap in points, ToW in [0, 1], JS_forget and JS_test in nats."""
    return {
        "gap": gap(metrics, reference),
        "ToW": tow(metrics, reference),
        "JS_forget": js_divergence(said.forget, reference_said.forget),
        "JS_test": js_divergence(said.test, reference_said.test),
    }


def mean_of(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric that all of them have."""
    return {name: entry["mean"] for name, entry in spread(scores).items()}


def spread(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Return mean, 95% t interval and standard deviation of each metric over several models or runs; ``n`` is their number.

    Only metrics that all of them have are included. One that is undefined for any of them (None or NaN) is NaN: leaving the failures out
    would flatter it.
    """
    names = [name for name in scores[0] if all(name in entry for entry in scores)]
    return {name: interval([math.nan if (value := entry[name]) is None else value for entry in scores]) for name in names}
