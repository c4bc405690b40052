"""How well a score tells members from non-members: area under the ROC curve, and the share of members found at few false alarms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auc(members: NDArray[Any], others: NDArray[Any]) -> float:
    """Return P(a member's score is above a non-member's), ties counted half; in [0, 1], 0.5 is chance. NaN without members or others."""
    if not len(members) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below, upto = np.searchsorted(ordered, members, "left"), np.searchsorted(ordered, members, "right")
    return float((below + upto).mean() / (2 * len(others)))


def tpr_at_fpr(members: NDArray[Any], others: NDArray[Any], fpr: float) -> float:
    """Return the largest share of members above a threshold that at most a share ``fpr`` of the others exceeds; in [0, 1].

    Equal scores are treated alike, so all scores tied at the threshold are excluded. With fewer than ``1 / fpr`` others no false alarm is
    allowed at all, and the number says little. NaN without members or others.
    """
    if not len(members) or not len(others):
        return float("nan")
    allowed = int(fpr * len(others) + 1e-9)
    if allowed >= len(others):
        return 1.0
    threshold = np.sort(others)[::-1][allowed]
    return float((np.asarray(members) > threshold).mean())
