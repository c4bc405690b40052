"""How entangled the features of the forget set are with the rest (for the reason see MeGU, arXiv 2602.17088, Section 3; METHOD §1).

The paper argues with associated and unique features and gives no formula; the overlap matrices are our choice, the
forget/retain score is Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entanglement:
    """soft: (K, K), cosine of centred class-mean features, in [-1, 1]. hard: (K, K), Jaccard index of the classes' active
    channels, in [0, 1]. unique: (K,), share of a class's active channels that no other class uses. score: forget/retain
    entanglement, at least 0; high means entangled, so hard to forget; infinite when the two means coincide with the overall one.
    """

    soft: Floats
    hard: Floats
    unique: Floats
    score: float

    def nearest(self, classes: tuple[int, ...] | list[int], count: int = 3) -> dict[int, list[int]]:
        """Return, for each of ``classes``, the other classes with the highest soft overlap, nearest first."""
        order = np.argsort(-self.soft, axis=1, kind="stable")
        return {k: [int(other) for other in order[k] if other not in classes][:count] for k in classes}

    def to_arrays(self) -> dict[str, Floats]:
        return {"soft": self.soft, "hard": self.hard, "unique": self.unique}


def analyse(features: NDArray[Any], labels: NDArray[Any], num_classes: int, forget: NDArray[np.bool_]) -> Entanglement:
    """Measure entanglement from penultimate features of the training data.

    Parameters
    ----------
    features: (N, F), not negative (after a ReLU). labels: int (N,). forget: bool (N,), the forget set.

    A class without samples has overlap 0 with all. Raises ``ValueError`` when the forget or the retain set is empty.
    """
    x = np.asarray(features, dtype=np.float64)
    means = np.zeros((num_classes, x.shape[1]))
    for k in range(num_classes):
        if (labels == k).any():
            means[k] = x[labels == k].mean(axis=0)
    active = active_channels(means)
    used_by = active.sum(axis=0)
    own = active.sum(axis=1)
    unique = np.divide((active & (used_by == 1)).sum(axis=1), own, out=np.zeros(num_classes), where=own > 0)
    return Entanglement(soft_overlap(means), hard_overlap(active), unique, entanglement_score(x[forget], x[~forget]))


def soft_overlap(means: Floats) -> Floats:
    """Return the cosine between class means (K, F) after subtracting the mean of the means; 1 on the diagonal."""
    centred = means - means.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1)
    unit = np.divide(centred, norms[:, None], out=np.zeros_like(centred), where=norms[:, None] > 0)
    overlap: Floats = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(overlap, 1.0)
    return overlap


def active_channels(means: Floats) -> NDArray[np.bool_]:
    """Return bool (K, F): the channels whose mean for the class exceeds the mean of the class means by at least half their
    standard deviation over classes. A channel that is the same for every class is active for none."""
    deviation = means.std(axis=0)
    active: NDArray[np.bool_] = (means > means.mean(axis=0) + deviation / 2) & (
        deviation > 1e-12 * np.abs(means).max(initial=0)
    )
    return active


def hard_overlap(active: NDArray[np.bool_]) -> Floats:
    """Return the Jaccard index of the sets of active channels (K, K); 1 on the diagonal, 0 where neither class has any."""
    counts = active.astype(np.float64)
    both = counts @ counts.T
    either = counts.sum(axis=1)[:, None] + counts.sum(axis=1)[None, :] - both
    overlap: Floats = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(overlap, 1.0)
    return overlap


def entanglement_score(forget: Floats, retain: Floats) -> float:
    """Return the score of Zhao et al. 2024: (mean squared distance of the retain features to their mean + the same for the forget
    features), over half the sum of squared distances of the two means to the mean of all features."""
    if not len(forget) or not len(retain):
        raise ValueError("entanglement needs a forget set and a retain set")
    mean_forget, mean_retain = forget.mean(axis=0), retain.mean(axis=0)
    overall = (len(forget) * mean_forget + len(retain) * mean_retain) / (len(forget) + len(retain))
    within = _mean_square(retain - mean_retain) + _mean_square(forget - mean_forget)
    between = (((mean_retain - overall) ** 2).sum() + ((mean_forget - overall) ** 2).sum()) / 2
    return float(within / between) if between > 0 else float("inf")


def _mean_square(distances: Floats) -> float:
    return float((distances**2).sum(axis=1).mean())
