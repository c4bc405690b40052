"""Baselines for the labeler's transition matrix: the same matrix without its information about which other classes a class looks like.

Separate from `megu.unlearning.labels.transition`, so that a change there does not recompute labels whose matrix stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Where the matrix comes from: the labeler's unchanged, four that use none or only a part of its scores, and none at all.
JUDGED, UNIFORM, SHUFFLED, OVERLAP, NEAREST, NONE = SOURCES = ("judged", "uniform", "shuffled", "overlap", "nearest", "none")


def replaced(
    source: str, judged: NDArray[Any], overlap: NDArray[Any] | None = None, forgotten: Sequence[int] = (), seed: int = 0
) -> Floats:
    """Return the matrix of ``source``, one of `SOURCES`, float64 (K, K), column-stochastic like ``judged``.

    judged: the labeler's, (K, K). "uniform" and "shuffled" keep its diagonal, how much a class looks like itself, so that they differ from
    it only in the other classes: "uniform" shares the rest of each column equally; "shuffled" is the matrix with the class names permuted
    so that none keeps its own. "nearest" is 1 at each class's most similar other class that stays.
    overlap: of the original's features, (K, K), in [-1, 1] (`megu.unlearning.entanglement`), for "overlap", which uses nothing from the
    labeler; classes that share less than two classes do on average (negative) share nothing.
    forgotten: classes that leave. seed: determines the permutation of names.
    """
    T = np.asarray(judged, dtype=np.float64)
    classes = len(T)
    if source == JUDGED:
        return T
    if source == NONE or classes == 1:
        return np.eye(classes)
    if source == OVERLAP:
        if overlap is None:
            raise ValueError("the overlap of the original's features is needed")
        shared = np.maximum(overlap, 0.0)
        columns: Floats = (shared / shared.sum(axis=1, keepdims=True)).T
        return columns
    if source == UNIFORM:
        own = np.diag(T)
        result: Floats = np.tile((1 - own) / (classes - 1), (classes, 1))
        np.fill_diagonal(result, own)
        return result
    if source == SHUFFLED:
        other = _derangement(classes, seed)
        return T[np.ix_(other, other)]
    others = T.copy()
    others[list(forgotten)] = -1.0
    np.fill_diagonal(others, -2.0)
    nearest: Floats = np.eye(classes)[others.argmax(axis=0)].T
    return nearest


def _derangement(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of ``count`` (at least 2) that moves every element: one cycle through all."""
    order = np.random.default_rng(seed).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found
