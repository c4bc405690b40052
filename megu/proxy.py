"""A proxy for the model that nobody has: one that never saw the forget set, trained on a small share of the retain set.

Whoever forgets must answer for the forget set as a retrained model would: not only which class an image looks like, but how sure of
it such a model is, image by image. An original that has memorised its training set cannot tell; what it leaves for the other classes
is noise. So a small model of the same architecture learns a share of the retain set by the same recipe, in as many steps with batches
smaller by that share. It gives the probabilities p of Eq 7 (MeGU, arXiv 2602.17088) in the original's place, and the sharpness of
each sample's target.

A model that saw less is less sure. The temperature that makes the proxy as sure of held-out images (the test images of what is
retained) as the original is of them makes up for it: one number, fitted without their labels. Ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.params import STRICT, check
from megu.perturbing import MOST, Perturbing, fitting, rank_labels, sharpened
from megu.seeds import derive
from megu.training import TrainParams, fit

Floats = NDArray[np.float64]

#: The furthest temperature from 1 that is looked for.
HOTTEST = 20.0
#: Batch norm needs some images to have statistics of.
SMALLEST_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class ProxyParams:
    """when: "always", "never", or "auto": for an original that is right on at least the share ``memorised`` of its training images, and for
    requests after which every class stays. share: of the retain set that the proxy learns, in (0, 1]; about its share of the
    retrain's time, too."""

    __pydantic_config__ = STRICT

    when: Literal["auto", "always", "never"] = "auto"
    share: float = 0.1
    memorised: float = 0.99

    def __post_init__(self) -> None:
        check("share", self.share, 0 < self.share <= 1, "above 0 and at most 1")
        check("memorised", self.memorised, 0 <= self.memorised <= 1, "between 0 and 1")

    def refusal(self, train_accuracy: float, forgotten: Sequence[int]) -> str | None:
        """Why no proxy is made, for a person; None when one is. train_accuracy: the original's, in [0, 1]."""
        if self.when == "never":
            return "not asked for"
        if self.when == "auto" and forgotten and train_accuracy < self.memorised:
            return f"the original is right on {100 * train_accuracy:.1f}% of its training images, so it has not memorised them"
        return None


def smaller(recipe: TrainParams, share: float) -> TrainParams:
    """The recipe for a share of the images: as many steps, with batches smaller by that share."""
    return replace(recipe, batch_size=max(SMALLEST_BATCH, round(recipe.batch_size * share)))


def train_proxy(
    retain: ImageSet,
    recipe: TrainParams,
    share: float,
    fresh: Callable[[], nn.Module],
    seed: int,
    checkpoint: Path | None = None,
) -> nn.Module:
    """A model that learned ``share`` of the retain set, drawn by the seed. fresh: makes a newly initialised network."""
    from megu.models import seeded

    own = derive(seed, "proxy")
    size = min(len(retain), max(SMALLEST_BATCH, round(share * len(retain))))
    drawn = np.sort(np.random.default_rng(own).permutation(len(retain))[:size])
    model = seeded(fresh, own).to(retain.device)
    fit(model, retain.subset(drawn), smaller(recipe, share), own, checkpoint=checkpoint, label="proxy")
    return model


def masked(logits: NDArray[Any], forgotten: Sequence[int]) -> Floats:
    """float64 (N, K): -inf in the columns of the forgotten classes."""
    result = np.array(logits, dtype=np.float64)
    result[:, list(forgotten)] = -np.inf
    return result


def temperature(proxy: Floats, original: Floats) -> float:
    """What the proxy's logits are divided by so that its mean entropy is the original's; (N, K) each, of the same held-out images.

    In [1 / `HOTTEST`, `HOTTEST`].
    """
    wanted = entropies(softmax(original)).mean()
    return float(1 / fitting(lambda exponent: entropies(softmax(proxy * exponent)).mean() > wanted, HOTTEST))


def fitting_exponents(distributions: Floats, wanted: Floats) -> Floats:
    """For each row of ``distributions`` (N, K) the exponent in [1 / MOST, MOST] that gives it the entropy ``wanted`` (N,), in nats, or
    comes nearest to it."""
    return fitting(lambda exponents: entropies(sharpened(distributions, exponents[:, None])) > wanted, MOST, wanted.shape)


def perturb_by_proxy(
    transition: NDArray[Any], logits: NDArray[Any], forgotten: Sequence[int], sharpness: Literal["auto"] | float
) -> Perturbing:
    """Soft targets (Eq 7) from the proxy's answers: ``R = T @ p``, and each row as sure as the proxy is of that sample.

    transition: (K, K), column-stochastic. logits: (N, K), the proxy's for the forget samples, its temperature applied.
    forgotten: classes that leave the label space. A sample's own class is a possible answer where it stays: a model that never saw
    the sample mostly knows what it is. sharpness: the same exponent for all rows, or "auto".

    Raises ``ValueError`` when no class is left to teach.
    """
    allowed = np.ones_like(logits, dtype=bool)
    allowed[:, list(forgotten)] = False
    if not allowed.any(axis=1).all():
        raise ValueError(f"all {allowed.shape[1]} classes are being forgotten: no perturbing label is left")
    answers = softmax(masked(logits, forgotten))
    spread = np.where(allowed, answers @ np.asarray(transition, dtype=np.float64).T, 0.0)
    total = spread.sum(axis=1, keepdims=True)
    reasoning = np.where(total > 0, spread / np.where(total > 0, total, 1.0), answers)
    exponents = (
        fitting_exponents(reasoning, entropies(answers)) if sharpness == "auto" else np.full(len(reasoning), float(sharpness))
    )
    targets = sharpened(reasoning, exponents[:, None]).astype(np.float32)
    return Perturbing(
        labels=rank_labels(reasoning, allowed, 0.0),
        targets=targets,
        reasoning=reasoning,
        sharpness=float(np.round(np.median(exponents), 4)),
    )
