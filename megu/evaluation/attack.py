"""The membership-inference attack of the unlearning papers: logistic regression on the entropy of the output.

One feature and balanced classes, so Newton's method on two weights is the whole of it; the same as scikit-learn's
``LogisticRegression(class_weight="balanced")``, which a test compares it with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def members_called(members: NDArray[Any], others: NDArray[Any], asked: NDArray[Any]) -> float:
    """The share of ``asked`` that the attack calls members, in percent.

    members: entropies (N,) of retained training samples. others: of test samples. asked: of the forgotten training samples.
    """
    weight, bias = fit(members, others)
    return 100.0 * float((weight * np.asarray(asked, dtype=np.float64) + bias > 0).mean())


def fit(members: NDArray[Any], others: NDArray[Any], penalty: float = 1.0, steps: int = 100) -> tuple[float, float]:
    """Weight and bias of the balanced logistic regression, members as 1; L2 ``penalty`` on the weight (scikit-learn's 1/C).

    Raises ``ValueError`` when either group is empty.
    """
    if not len(members) or not len(others):
        raise ValueError("the attack needs members and non-members")
    x = np.concatenate([members, others]).astype(np.float64)
    y = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    balance = np.where(y == 1, len(x) / (2 * len(members)), len(x) / (2 * len(others)))
    inputs = np.stack([x, np.ones_like(x)])
    theta = np.zeros(2)
    ridge = np.diag([penalty, 0.0])

    def cost(at: NDArray[np.float64]) -> float:
        z = at @ inputs
        return float((balance * (np.logaddexp(0, z) - y * z)).sum() + at @ ridge @ at / 2)

    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(theta @ inputs, -500, 500)))
        gradient = inputs @ (balance * (p - y)) + ridge @ theta
        curvature = (inputs * (balance * p * (1 - p))) @ inputs.T + ridge
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        length, before = 1.0, cost(theta)
        # Far from the optimum a full Newton step may overshoot; halve it until the cost falls.
        while cost(theta - length * step) > before and length > 1e-10:
            length /= 2
        theta = theta - length * step
        if np.abs(length * step).max() < 1e-10:
            break
    return float(theta[0]), float(theta[1])
