"""The transition matrix (MeGU, arXiv 2602.17088, Eq 6): from how similar concepts look to the classes that a sample may move to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError


def transition_matrix(similarity: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``T[:, k] = S[k, :] / sum(S[k, :])``, float64 (K, K): column k, which sums to 1, describes what class k looks like.

    similarity: S (K, K), not negative; ``S[k, l]`` is how much exemplars of k look like l.
    Raises `MeguError` when S is not square, has a negative entry or a NaN, or has a row of zeros.
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
