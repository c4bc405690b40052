"""What the labeler's transition matrix is measured against: the same matrix without its judgement of which other classes a class looks like.

Apart from `megu.unlearning.labels.transition`, so that a change there makes no labels anew whose matrix stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Where the matrix comes from: the labeler's as it is, four that are not its judgement or only a part of it, and none at all.
JUDGED, UNIFORM, SHUFFLED, OVERLAP, NEAREST, NONE = SOURCES = ("judged", "uniform", "shuffled", "overlap", "nearest", "none")


def replaced(
    source: str, judged: NDArray[Any], overlap: NDArray[Any] | None = None, forgotten: Sequence[int] = (), seed: int = 0
) -> Floats:
    """The matrix of ``source``, one of `SOURCES`, float64 (K, K), column-stochastic as ``judged`` is.

    judged: the labeler's, (K, K). "uniform" and "shuffled" keep its diagonal, how much a class looks like itself, so that they differ from it
    in what is said of the other classes alone: "uniform" shares the rest of each column equally; "shuffled" is the matrix of the classes
    under each other's names, none under its own. "nearest" is 1 at each class's most similar other class that stays.
    overlap: of the original's features, (K, K), in [-1, 1] (`megu.unlearning.entanglement`), for "overlap", which takes nothing of the
    labeler;
    classes that share less than two classes do on average (negative) share nothing.
    forgotten: classes that leave. seed: decides which class is under which name.
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
    """A random permutation of ``count`` (at least 2) in which none stays where it is: one cycle through all."""
    order = np.random.default_rng(seed).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found
