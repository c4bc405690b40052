"""Estimate how sure a model is of images it never saw, from the original's predictions for held-out images. No model is trained for it.

An unlearned model must answer for the forget set as a retrained model would: not only which class an image looks like, but how sure of
it such a model is. An original that has memorised its training images cannot tell that from them, but it can from the calibration set
(`megu.unlearning.labels.calibration_set`).

*A class that leaves.* To a retrain every image of the class belongs to a class that it does not know. Among the held-out images there are
some whose class the original does not recognise either: the less an image is recognised, the more it counts, ``(1 - p)^a`` with p the
original's probability of its class. The entropies of the answers with that class struck out, weighted this way, form the distribution
that the forgotten images are given: its low tail, which an entropy attack sees, as well as its mean. The forgotten class's own images
count most; those of the other classes stand in where there are few (`PRIOR`).

*A class that looks like no other.* Its unrecognised images are odd ones, each resembling a different class, and the original is surer of
them than a retrain is of the class's typical images, which look like nothing it knows. Such a class can be told by its odd images not
resembling the same class: by the entropy of their mean answer, as a share of the largest, v. So the power is ``a = 0.6 (1 - v^4)``: the
nearer v is to 1, the more equally all images count (`POWER`, `VARIED`).

*A class that stays* (single samples, sub-classes). To a retrain the sample is a held-out image of its class. So its log-odds of the class
are those of a held-out image of the same rank: the sample among the training images of its class, the image among the held-out ones.
Where a whole sub-class leaves, the original knows its held-out images from training on similar ones, while a retrain never saw any. How
much the sub-class still looks like its class must come from a model that never saw it: the labeler (`share_of_own`). The probabilities
are lowered to that.

Ours, not the paper's (arXiv 2602.17088), which leaves the sharpness of its labels open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.evaluation import entropies, softmax

Floats = NDArray[np.float64]

#: The largest power of 1 - p that weights an image: a large one leaves too few images to estimate a distribution, 0 also counts well-known
#: images. It is lowered by the variety of the answers to a class's unrecognised images, in [0, 1], to the power `VARIED`.
POWER = 0.6
VARIED = 4
#: The weight of all other classes together, in images of the forgotten class.
PRIOR = 10.0


def log_odds(logits: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """Return log p / (1 - p) of each row's label: (N, K) and int (N,) -> (N,). Computed from logits, so exact where p rounds to 1."""
    rows = np.arange(len(labels))
    values = np.asarray(logits, dtype=np.float64)
    others = values.copy()
    others[rows, labels] = -np.inf
    top = others.max(axis=1)
    found: Floats = values[rows, labels] - top - np.log(np.exp(others - top[:, None]).sum(axis=1))
    return found


def struck_out(logits: NDArray[Any], labels: NDArray[Any], forgotten: Sequence[int] = ()) -> Floats:
    """Return the softmax of each row without its own label and the classes ``forgotten``: (N, K) and int (N,) -> (N, K), rows summing to 1;
    a row with nothing left is 0."""
    values = np.array(logits, dtype=np.float64)
    values[:, list(forgotten)] = -np.inf
    values[np.arange(len(labels)), labels] = -np.inf
    left = np.isfinite(values).any(axis=1, keepdims=True)
    return np.where(left, softmax(np.where(left, values, 0.0)), 0.0)


@dataclass(frozen=True)
class Calibration:
    """The original's predictions for the calibration set and for its training images.

    answers: float64 (M, K), with the own class struck out; entropies: (M,), of the answers, in nats; odds: (M,), log-odds of that class.
    labels: int (M,).
    train_odds, train_labels: (N,), of the training images.
    """

    answers: Floats
    entropies: Floats
    odds: Floats
    labels: NDArray[Any]
    train_odds: Floats
    train_labels: NDArray[Any]

    @classmethod
    def of(
        cls,
        logits: NDArray[Any],
        labels: NDArray[Any],
        train_logits: NDArray[Any],
        train_labels: NDArray[Any],
        forgotten: Sequence[int] = (),
    ) -> Calibration | None:
        """Make it from logits (M, K) of the calibration set and (N, K) of the training set; None without any calibration images.

        forgotten: the classes that leave, which no answer may name.
        """
        if not len(labels):
            return None
        answers = struck_out(logits, labels, forgotten)
        return cls(
            answers=answers,
            entropies=entropies(answers),
            odds=log_odds(logits, labels),
            labels=np.asarray(labels),
            train_odds=log_odds(train_logits, train_labels),
            train_labels=np.asarray(train_labels),
        )

    def unseen(self, classes: NDArray[Any], ranks: Floats) -> Floats:
        """Return the entropies (N,), in nats, of the answers to samples of ``classes`` (N,) by a model that never saw the class.
        ranks: (N,), in (0, 1); 0 is the surest of the class."""
        recognised = np.logaddexp(0, self.odds)  # -log(1 - p): 1 - p itself underflows to 0 where all are well known
        found = np.empty(len(ranks))
        for own in np.unique(classes):
            at, mine = classes == own, self.labels == own
            values, weights = self.entropies.copy(), np.zeros(len(recognised))
            unknown = -POWER * recognised
            if mine.any():
                unknown *= 1 - variety(self.answers[mine], np.exp(unknown[mine] - unknown[mine].max())) ** VARIED
            for part in (mine, ~mine):
                if part.any():
                    counts = np.exp(unknown[part] - unknown[part].max())
                    # In total the effective number (Kish) of its own images, and `PRIOR` of the others.
                    size = counts.sum() ** 2 / (counts**2).sum() if part is mine else PRIOR
                    weights[part] = counts * (size / counts.sum())
            # The others contribute only their shape. Their mean is that of another class, so it is replaced by the class's estimated mean.
            if mine.any() and not mine.all():
                expected, others = np.average(values, weights=weights), np.average(values[~mine], weights=weights[~mine])
                values[~mine] = np.minimum(values[~mine] * expected / max(others, 1e-12), self.entropies.max())
            found[at] = quantiles(values, weights, ranks[at])
        return found

    def held_out_odds(self, classes: NDArray[Any], odds: Floats) -> Floats:
        """Return the log-odds (N,) that samples of ``classes`` (N,), with ``odds`` (N,) as training images, would have if held out."""
        found = np.empty(len(odds))
        for own in np.unique(classes):
            at, known, held = classes == own, np.sort(self.train_odds[self.train_labels == own]), self.odds[self.labels == own]
            if not len(held):
                held = self.odds
            ranks = (np.searchsorted(known, odds[at], "left") + np.searchsorted(known, odds[at], "right")) / (2 * len(known))
            found[at] = quantiles(held, np.ones(len(held)), np.clip(ranks, 0.5 / len(known), 1 - 0.5 / len(known)))
        return found


def probabilities(odds: Floats) -> Floats:
    """Convert log-odds to probabilities, (N,) -> (N,)."""
    found: Floats = 1 / (1 + np.exp(np.clip(-odds, -700, 700)))
    return found


def lowered(odds: Floats, likeness: Floats) -> Floats:
    """Return the probabilities (N,) of log-odds (N,), those of a sub-class lowered together until their mean is its ``likeness``, (N,), in
    [0, 1]; where that is NaN, or not below their mean, they stay the same."""
    found = probabilities(odds)
    for share in np.unique(likeness[np.isfinite(likeness)]):
        at = likeness == share
        low, high = -1000.0, 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if probabilities(odds[at] + middle).mean() > share else (middle, high)
        found[at] = probabilities(odds[at] + high)
    return found


def share_of_own(similarity: NDArray[Any], own: int, forgotten: Sequence[int] = ()) -> float:
    """Return the share of the own class in what something looks like, in [0, 1]: in ``similarity`` (K,), without the ``forgotten`` classes.

    0 where it looks like none of them.
    """
    left = np.array(similarity, dtype=np.float64)
    left[list(forgotten)] = 0.0
    return float(left[own] / left.sum()) if left.sum() > 0 else 0.0


def variety(answers: Floats, weights: Floats) -> float:
    """Return how much ``answers`` (M, K) differ from each other: the entropy of their mean, weighted by ``weights`` (M,), as a share of the
    largest that the classes named in them allow; in [0, 1]."""
    named = np.count_nonzero(answers.any(axis=0))
    return float(entropies(np.average(answers, axis=0, weights=weights)[None])[0] / np.log(named)) if named > 1 else 0.0


def quantiles(values: Floats, weights: Floats, levels: Floats) -> Floats:
    """Return the weighted quantiles of ``values`` (M,) at ``levels`` in (0, 1), with linear interpolation."""
    order = np.argsort(values, kind="stable")
    heaped = np.cumsum(weights[order])
    found: Floats = np.interp(levels, (heaped - weights[order] / 2) / heaped[-1], values[order])
    return found


def ranks(values: Floats, classes: NDArray[Any]) -> Floats:
    """Return the rank of each value among those of its class, in (0, 1); ties by position."""
    found = np.empty(len(values))
    for own in np.unique(classes):
        at = np.flatnonzero(classes == own)
        found[at[np.argsort(values[at], kind="stable")]] = (np.arange(len(at)) + 0.5) / len(at)
    return found
