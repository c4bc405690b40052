"""How far two rankings agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation in [-1, 1]; None with fewer than three values, or when all values of one side are equal."""
    if one.size < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    from scipy.stats import spearmanr  # takes a second

    return float(spearmanr(one, other, axis=None).statistic)


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return the off-diagonal entries of a square matrix: those about different classes."""
    kept: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return kept


def symmetry(matrix: NDArray[Any]) -> float | None:
    """Return the rank correlation of a matrix with its transpose, without the diagonal: 1 when both directions rank alike."""
    above = np.triu_indices(len(matrix), 1)
    both = np.concatenate([matrix[above], matrix.T[above]])
    return rank_correlation(both, np.concatenate([matrix.T[above], matrix[above]]))
