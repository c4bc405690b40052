"""How far two orders agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """The rank of each value (1 the smallest), equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return mean


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Spearman's rank correlation in [-1, 1]; None with fewer than three values, or when either side is all alike."""
    if one.size < 3:
        return None
    a, b = (ranks(np.asarray(values, dtype=float).ravel()) for values in (one, other))
    if not a.std() or not b.std():
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    """The entries of a square matrix but for its diagonal: what it says about different classes."""
    kept: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return kept


def symmetry(matrix: NDArray[Any]) -> float | None:
    """Rank correlation between a matrix and its transpose, the diagonal left out: 1 when both directions rank alike."""
    above = np.triu_indices(len(matrix), 1)
    both = np.concatenate([matrix[above], matrix.T[above]])
    return rank_correlation(both, np.concatenate([matrix.T[above], matrix[above]]))
