"""The membership-inference attacks of the unlearning papers: a logistic regression and a support-vector machine on the entropy of the
output.

With one feature and balanced classes, Newton's method on two weights is all that either needs: milliseconds for 60,000 samples, all of them
used, with the same result as scikit-learn's ``LogisticRegression(class_weight="balanced")`` and ``LinearSVC(class_weight="balanced")``,
which tests compare them with. Public code fits a machine with a radial kernel, whose time grows with the square of the samples (minutes
here, hopeless beyond), or fits it on a few of them. On a single feature a kernel gains little: the linear machine can already put its
threshold anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
#: (entropies of members, of others) -> weight and bias; a sample is called a member where weight * entropy + bias is positive
Fit = Callable[[NDArray[Any], NDArray[Any]], tuple[float, float]]


def logistic(members: NDArray[Any], others: NDArray[Any], penalty: float = 1.0) -> tuple[float, float]:
    """Return weight and bias of the balanced logistic regression, members as 1; L2 ``penalty`` on the weight (scikit-learn's 1/C).

    Raises ``ValueError`` when either group is empty.
    """
    inputs, side, balance = _balanced(members, others)
    y, ridge = (side + 1) / 2, np.diag([penalty, 0.0])

    def cost(theta: Vector) -> float:
        z = theta @ inputs
        return float((balance * (np.logaddexp(0, z) - y * z)).sum() + theta @ ridge @ theta / 2)

    def slope(theta: Vector) -> tuple[Vector, Vector]:
        p = 1 / (1 + np.exp(-np.clip(theta @ inputs, -500, 500)))
        return inputs @ (balance * (p - y)) + ridge @ theta, (inputs * (balance * p * (1 - p))) @ inputs.T + ridge

    return _newton(cost, slope)


def svm(members: NDArray[Any], others: NDArray[Any], strength: float = 1.0) -> tuple[float, float]:
    """Return weight and bias of the balanced linear support-vector machine with squared hinge loss, members on the positive side.

    strength: scikit-learn's C; as in liblinear, the bias is penalised like the weight.
    Raises ``ValueError`` when either group is empty.
    """
    inputs, side, balance = _balanced(members, others)

    def cost(theta: Vector) -> float:
        inside = np.maximum(1 - side * (theta @ inputs), 0)
        return float(theta @ theta / 2 + strength * (balance * inside**2).sum())

    def slope(theta: Vector) -> tuple[Vector, Vector]:
        inside = np.maximum(1 - side * (theta @ inputs), 0)
        curvature = np.eye(2) + 2 * strength * (inputs * (balance * (inside > 0))) @ inputs.T
        return theta - 2 * strength * inputs @ (balance * side * inside), curvature

    return _newton(cost, slope)


def members_called(members: NDArray[Any], others: NDArray[Any], asked: NDArray[Any], fit: Fit = logistic) -> float:
    """Return the share of ``asked`` that the attack calls members, in percent.

    members: entropies (N,) of retained training samples. others: of test samples. asked: of the forgotten training samples.
    """
    return 100.0 * float(called(members, others, asked, fit).mean())


def called(members: NDArray[Any], others: NDArray[Any], asked: NDArray[Any], fit: Fit = logistic) -> NDArray[np.bool_]:
    """Return which of ``asked`` (N,) the attack calls members; see `members_called`."""
    weight, bias = fit(members, others)
    found: NDArray[np.bool_] = weight * np.asarray(asked, dtype=np.float64) + bias > 0
    return found


def threshold(members: NDArray[Any], others: NDArray[Any]) -> float:
    """Return the entropy in nats at which the attack is undecided; below it a sample is called a member. See `members_called`."""
    weight, bias = logistic(members, others)
    return -bias / weight if abs(weight) > 1e-9 else float(np.mean([np.mean(members), np.mean(others)]))


def _balanced(members: NDArray[Any], others: NDArray[Any]) -> tuple[Vector, Vector, Vector]:
    """Return inputs (2, N): the feature and a one; side (N,): 1 for members, -1 for others; weights (N,): each side half of N."""
    if not len(members) or not len(others):
        raise ValueError("the attack needs members and non-members")
    x = np.concatenate([members, others]).astype(np.float64)
    side = np.concatenate([np.ones(len(members)), -np.ones(len(others))])
    balance = np.where(side > 0, len(x) / (2 * len(members)), len(x) / (2 * len(others)))
    return np.stack([x, np.ones_like(x)]), side, balance


def _newton(
    cost: Callable[[Vector], float], slope: Callable[[Vector], tuple[Vector, Vector]], steps: int = 100
) -> tuple[float, float]:
    """Minimise a convex cost of two weights; ``slope`` returns gradient (2,) and curvature (2, 2)."""
    theta = np.zeros(2)
    for _ in range(steps):
        gradient, curvature = slope(theta)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        length, before = 1.0, cost(theta)
        # Far from the optimum a full Newton step may overshoot; halve it until the cost falls.
        while cost(theta - length * step) > before and length > 1e-10:
            length /= 2
        theta = theta - length * step
        if np.abs(length * step).max() < 1e-10:
            break
    return float(theta[0]), float(theta[1])
