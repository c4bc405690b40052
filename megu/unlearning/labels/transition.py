"""The transition matrix (MeGU, arXiv 2602.17088, Eq 6): from how similar concepts look to where a sample may go.

`replaced` is what it is measured against: the same matrix without the labeler's judgement of which other classes a class looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError

Floats = NDArray[np.float64]

#: Where the matrix comes from: the labeler's as it is, four that are not its judgement or only a part of it, and none at all.
JUDGED, UNIFORM, SHUFFLED, OVERLAP, NEAREST, NONE = SOURCES = ("judged", "uniform", "shuffled", "overlap", "nearest", "none")


def transition_matrix(similarity: NDArray[Any]) -> NDArray[np.float64]:
    """``T[:, k] = S[k, :] / sum(S[k, :])``, float64 (K, K): column k, which sums to 1, says what class k looks like.

    similarity: S (K, K), not negative; ``S[k, l]`` is how much exemplars of k look like l.
    Raises `MeguError` when S is not square, negative or not a number somewhere, or has a row of zeros.
    """
    S = np.asarray(similarity, dtype=np.float64)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or not len(S):
        raise MeguError(f"the labeler's similarity has the shape {S.shape}, not K x K", "label again")
    if not np.isfinite(S).all() or (S < 0).any():
        row, column = np.argwhere(~np.isfinite(S) | (S < 0))[0]
        raise MeguError(
            f"the labeler's similarity S[{row}, {column}] is {S[row, column]}",
            "similarities must be numbers from 0 up; label again",
        )
    total = S.sum(axis=1)
    if (total == 0).any():
        raise MeguError(
            f"class {int(np.argmin(total))} looks like nothing to the labeler", "use more exemplars, or another labeler"
        )
    # Divide by the largest first: a row of subnormal numbers would not sum to 1.
    scaled = S / S.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = (scaled / scaled.sum(axis=1, keepdims=True)).T
    return result


def replaced(
    source: str, judged: NDArray[Any], overlap: NDArray[Any] | None = None, forgotten: Sequence[int] = (), seed: int = 0
) -> Floats:
    """The matrix of ``source``, one of `SOURCES`, float64 (K, K), column-stochastic as ``judged`` is.

    judged: the labeler's, (K, K). "uniform" and "shuffled" keep its diagonal, how much a class looks like itself, so that they differ from it
    in what is said of the other classes alone: "uniform" shares the rest of each column equally; "shuffled" is the matrix of the classes
    under each other's names, none under its own. "nearest" is 1 at each class's most similar other class that stays.
    overlap: of the original's features, (K, K), in [-1, 1] (`megu.unlearning.entanglement`), for "overlap", which takes nothing of the
    labeler; classes
    that share less than two classes do on average (negative) share nothing.
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
        return transition_matrix(np.maximum(overlap, 0.0))
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
