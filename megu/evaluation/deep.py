"""Deep checks: what a model still holds of the forgotten data below its last layer, where accuracy and the attacks on entropy do not reach.

A model whose output for a class is struck out has forgotten nothing: its features tell the class apart as before. There are three
questions, and the right answer to each is the retrain's, since a network that learned the rest can distinguish much of what it never saw:

*Probe* (Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2017): a linear classifier on the frozen
penultimate features of retained images and of `SHOWN` forgotten ones. How many of the other forgotten images does it get right?

*Relearning from the retain set alone*: the network is fine-tuned on retained images, then gets a new last layer made from these alone. Its
answers on the forgotten images come back without a single one of them. The new layer is a Gaussian discriminant: one mean per class, one
covariance for all (Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018). An image is assigned to the forgotten class if it is farther from every retained class than all but `FALSE_ALARMS` of the retained
test images are; where the image's class stays (single images, sub-classes), the nearest class is the answer. Cross-entropy on the retain
set alone never raises the output of an absent class, so the old last layer would hide what the network knows.

*Relearning from a few*: the network is fine-tuned on retained images and the same few forgotten ones in equal parts, with the probe as its
last layer, and evaluated on the other forgotten images.

Batch statistics stay as they are (`megu.evaluation.relearning`), and every model gets the same images in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from megu.core.device import fused
from megu.core.seeds import derive, generator
from megu.data.tensors import ImageSet
from megu.evaluation.params import DeepParams
from megu.training.loop import Batches, Objective, optimise, predict

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Forgotten images that the probe and the relearning from a few see; half of them, if there are fewer than twice as many.
SHOWN = 20
#: At most this many forgotten images are evaluated, and this many retained training and test images used to make the layers.
ASKED, RETAINED = 500, 2000
#: The share of the retained test images that is assigned to the forgotten class.
FALSE_ALARMS = 0.05
#: The probe's ridge on standardised features, and its target logit for the true class (0 for the others).
RIDGE, LOGIT = 1e-2, 10.0


@dataclass(frozen=True)
class Drawn:
    """The images that every model is measured on.

    shown, asked: disjoint sets of forgotten training images. retained, test: retained training and test images. kept: the classes that
    still have training images, ascending.
    """

    shown: ImageSet
    asked: ImageSet
    retained: ImageSet
    test: ImageSet
    kept: Labels


def draw(train: ImageSet, test: ImageSet, forget: Labels, retain: Labels, retained_test: Labels, seed: int) -> Drawn:
    """Draw the images from a training and a test set. forget, retain, retained_test: positions in these; at least one each."""

    def some(images: ImageSet, positions: Labels, name: str, at_most: int) -> ImageSet:
        order = torch.randperm(len(positions), generator=generator(seed, "deep", name))[:at_most].numpy()
        return images.subset(np.asarray(positions)[order])

    shown = min(SHOWN, len(forget) // 2)
    forgotten = some(train, forget, "forget", shown + ASKED)
    return Drawn(
        shown=forgotten.subset(np.arange(shown)),
        asked=forgotten.subset(np.arange(shown, len(forgotten))),
        retained=some(train, retain, "retain", RETAINED),
        test=some(test, retained_test, "test", RETAINED),
        kept=np.unique(train.labels[torch.as_tensor(np.asarray(retain), device=train.device)].cpu().numpy()),
    )


def check(model: nn.Module, drawn: Drawn, num_classes: int, params: DeepParams, seed: int) -> dict[str, float]:
    """Return probe, relearn_retain and relearn_few: accuracies in percent on the forgotten images in ``drawn.asked``.

    The model itself does not change.
    """
    both = drawn.retained.joined(drawn.shown)
    weight, bias = probe(features(model, both), _labels(both), num_classes)
    found = {"probe": _percent((features(model, drawn.asked) @ weight + bias).argmax(1) == _labels(drawn.asked))}

    relearned = Probed(model, weight, bias)
    fine_tune(relearned, [drawn.retained, drawn.shown], params, derive(seed, "deep few"))
    answers = predict(relearned, drawn.asked, label="relearned from a few").logits.argmax(1).numpy()

    again = Probed(model, *probe(features(model, drawn.retained), _labels(drawn.retained), num_classes))
    fine_tune(again, [drawn.retained], params, derive(seed, "deep retain"))
    layer = Gaussian.fit(features(again, drawn.retained), _labels(drawn.retained))
    alone = layer.right(features(again, drawn.asked), _labels(drawn.asked), features(again, drawn.test), drawn.kept)
    return {**found, "relearn_retain": _percent(alone), "relearn_few": _percent(answers == _labels(drawn.asked))}


def features(model: nn.Module, images: ImageSet) -> Floats:
    """Return the penultimate features (N, F)."""
    found = predict(model, images, features=True, label="features").features
    assert found is not None
    return found.numpy().astype(np.float64)


def probe(inputs: Floats, labels: Labels, num_classes: int) -> tuple[Floats, Floats]:
    """Return weight (F, K) and bias (K,) of the linear classifier of features (N, F): ridge regression on `LOGIT` at the true class, every
    class of the labels with the same total weight."""
    share = 1.0 / np.bincount(labels, minlength=num_classes)[labels]
    share /= share.sum()
    mean = share @ inputs
    spread = np.sqrt(share @ (inputs - mean) ** 2) + 1e-6
    x, y = (inputs - mean) / spread, LOGIT * np.eye(num_classes)[labels]
    centre = share @ y
    weighted = x.T * share
    weight = np.linalg.solve(weighted @ x + RIDGE * np.eye(x.shape[1]), weighted @ (y - centre)) / spread[:, None]
    return weight, centre - mean @ weight


@dataclass(frozen=True)
class Gaussian:
    """A last layer made only from the classes' means (C, F). classes: ascending (C,). whiten: (F, F), from the shared covariance."""

    classes: Labels
    means: Floats
    whiten: Floats

    @classmethod
    def fit(cls, inputs: Floats, labels: Labels) -> Gaussian:
        """Fit it to features (N, F). The covariance is shrunk a little, so that it has an inverse however few the images."""
        classes, at = np.unique(labels, return_inverse=True)
        means = np.stack([inputs[at == number].mean(axis=0) for number in range(len(classes))])
        inside = inputs - means[at]
        covariance = inside.T @ inside / len(inputs)
        ridge = 1e-3 * np.trace(covariance) / len(covariance) + 1e-12
        values, vectors = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
        return cls(classes, means, vectors / np.sqrt(np.maximum(values, ridge)))

    def distances(self, inputs: Floats) -> Floats:
        """Return the squared Mahalanobis distance (N, C) of features (N, F) to each class."""
        x, centres = inputs @ self.whiten, self.means @ self.whiten
        squares = (x**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * x @ centres.T
        return np.asarray(squares, dtype=np.float64)

    def right(self, inputs: Floats, labels: Labels, held: Floats, kept: Labels) -> NDArray[np.bool_]:
        """Return which images (N, F) are classified correctly: for a ``kept`` class as the nearest class, otherwise as the forgotten class.
        held: features (M, F) of the retained test images, `FALSE_ALARMS` of which are assigned to the forgotten class."""
        found = self.distances(inputs)
        limit = np.quantile(self.distances(held).min(axis=1), 1 - FALSE_ALARMS)
        stays = np.isin(labels, kept)
        right: NDArray[np.bool_] = np.where(stays, self.classes[found.argmin(axis=1)] == labels, found.min(axis=1) > limit)
        return right


class Probed(nn.Module):
    """A copy of a model with another last layer, of weight (F, K) and bias (K,)."""

    def __init__(self, model: nn.Module, weight: Floats, bias: Floats) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.head = nn.Linear(*weight.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight.T))
            self.head.bias.copy_(torch.from_numpy(bias))
        self.to(next(model.parameters()).device)

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.model.features(images)  # type: ignore[operator]
        return found

    def classify(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))


def fine_tune(model: nn.Module, parts: Sequence[ImageSet], params: DeepParams, seed: int) -> None:
    """Train ``model`` in place, in evaluation mode: Adam on cross-entropy, at each step an equal share of a batch from each of ``parts``
    that has images. Raises `MeguError` if the values become non-finite."""
    parts = [part for part in parts if len(part)]
    size = max(params.batch_size // len(parts), 1)
    batches = [Batches(len(part), min(size, len(part)), derive(seed, number)) for number, part in enumerate(parts)]

    def batch_at(step: int) -> tuple[Tensor, ...]:
        pairs = zip(parts, batches, strict=True)
        both = [(part.batch(drawn.at(step, part.home)), part.labels[drawn.at(step, part.device)]) for part, drawn in pairs]
        return tuple(chain.from_iterable(both))

    def loss_of(*batch: Tensor) -> Tensor:
        pairs = zip(batch[::2], batch[1::2], strict=True)
        return torch.stack([F.cross_entropy(model(inputs), labels) for inputs, labels in pairs]).mean()

    optimise(
        model,
        torch.optim.Adam(model.parameters(), lr=params.lr, fused=fused(model)),
        Objective(batch_at, loss_of),
        lambda step: params.lr,
        params.steps,
        seed=seed,
        label="relearn",
        batch_size=sum(drawn.size for drawn in batches),
        training=False,
    )


def _labels(images: ImageSet) -> Labels:
    return images.labels.cpu().numpy()


def _percent(right: NDArray[Any]) -> float:
    return 100.0 * float(right.mean())
