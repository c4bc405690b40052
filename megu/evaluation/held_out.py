"""What can be measured of forgetting without a retrain.

A model that never saw the forgotten images treats them like any unseen image of their classes. So the forgotten training images are
compared with held-out ones: the test images of the same classes (finer ones where the data set has them), weighted so that each class
counts as it does among the forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.evaluation import entropies, percent, softmax
from megu.evaluation.attacks.entropy import called

if TYPE_CHECKING:
    from megu.data.arrays import Dataset
    from megu.data.splits import ForgetSplit
    from megu.evaluation.condensed import Condensed

#: The key of an evaluation's values that is present where there was no retrain: see `counts`.
HELD_OUT = "held_out"


@dataclass(frozen=True)
class HeldOut:
    """images: positions of the test images of the forgotten images' classes. weights: theirs (N,), summing to 1. Both are empty where some
    forgotten images are of a class without test images."""

    images: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def effective(self) -> int:
        """The number of equally weighted images that would be as informative (Kish); 0 without any."""
        return round(1.0 / float((self.weights**2).sum())) if len(self.images) else 0


def of(dataset: Dataset, split: ForgetSplit) -> HeldOut:
    """Return the held-out images for a request."""
    train, test = dataset.train, dataset.test
    if train.fine is not None and test.fine is not None:
        return choose(split.forget, train.fine, test.fine)
    return choose(split.forget, train.labels, test.labels)


def choose(forget: NDArray[Any], train_groups: NDArray[Any], test_groups: NDArray[Any]) -> HeldOut:
    """Return the held-out images for the forgotten ones. forget: positions (training). train_groups, test_groups: each image's (finer)
    class."""
    asked = np.bincount(np.asarray(train_groups)[forget], minlength=int(np.max(train_groups)) + 1)
    there = np.bincount(test_groups, minlength=len(asked))[: len(asked)]
    if (there[asked > 0] == 0).any():
        return HeldOut(np.empty(0, dtype=np.int64), np.empty(0))
    images = np.flatnonzero(np.isin(test_groups, np.flatnonzero(asked)))
    groups = np.asarray(test_groups)[images]
    return HeldOut(images, asked[groups] / asked.sum() / there[groups])


def counts(split: ForgetSplit, chosen: HeldOut, test_labels: NDArray[Any], num_classes: int) -> dict[str, Any]:
    """Return the counts that the gate needs. forgotten, images: how many were compared (`HeldOut.effective`). chance: the accuracy of a
    guess in percent where the forgotten test images are whole classes, which no retrain can name; otherwise None."""
    whole = len(split.test_forget) > 0 and bool(np.isin(np.asarray(test_labels)[split.test_forget], split.classes).all())
    return {"forgotten": len(split.forget), "images": chosen.effective, "chance": 100.0 / num_classes if whole else None}


def score(said: Condensed, test_labels: NDArray[Any], split: ForgetSplit, chosen: HeldOut) -> dict[str, float]:
    """Score one model on the held-out images: accuracy (Af_held_out) and the share that the entropy attack calls members (MIA_held_out) in
    percent, mean entropy (entropy_held_out) in nats; empty where there are no such images."""
    if not len(chosen.images):
        return {}
    test = entropies(softmax(said.test))
    members = called(said.entropy[split.retain], test, test[chosen.images])
    right = said.test[chosen.images].argmax(1) == np.asarray(test_labels)[chosen.images]
    return {
        "Af_held_out": 100.0 * float(chosen.weights @ right),
        "MIA_held_out": 100.0 * float(chosen.weights @ members),
        "entropy_held_out": float(chosen.weights @ test[chosen.images]),
    }


def per_class(test_logits: NDArray[Any], test_labels: NDArray[Any], split: ForgetSplit, num_classes: int) -> list[float]:
    """Return the accuracy by class in percent on the retained test images (K,); NaN for a class that has none."""
    labels = np.asarray(test_labels)[split.test_retain]
    right = test_logits[split.test_retain].argmax(1) == labels
    return [percent(right[labels == k]) for k in range(num_classes)]
