"""How far two orders agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Spearman's rank correlation in [-1, 1]; None with fewer than three values, or when either side is all alike."""
    if one.size < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    from scipy.stats import spearmanr  # takes a second

    return float(spearmanr(one, other, axis=None).statistic)


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    """The entries of a square matrix but for its diagonal: what it says about different classes."""
    kept: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return kept


def symmetry(matrix: NDArray[Any]) -> float | None:
    """Rank correlation between a matrix and its transpose, the diagonal left out: 1 when both directions rank alike."""
    above = np.triu_indices(len(matrix), 1)
    both = np.concatenate([matrix[above], matrix.T[above]])
    return rank_correlation(both, np.concatenate([matrix.T[above], matrix[above]]))
