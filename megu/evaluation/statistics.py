"""Intervals over a handful of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float], level: float = 0.95) -> dict[str, float]:
    """Mean, low and high of the t interval, standard deviation and n. With one value the interval is not known: NaN."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan, "std": math.nan, "n": n}
    std = float(np.std(values, ddof=1))
    half = t_quantile(0.5 + level / 2, n - 1) * std / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "std": std, "n": n}


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t for ``probability`` in (0.5, 1): bisection on its distribution function."""
    low, high = 0.0, 1.0
    while t_distribution(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_distribution(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def t_distribution(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0 and a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sin, cos = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cos, cos) if odd else (1.0, 1.0)
    for k in range(2 + odd, freedom, 2):
        term *= cos * cos * (k - 1) / k
        total += term
    if freedom == 1:
        inside = 2 * angle / math.pi
    elif odd:
        inside = 2 / math.pi * (angle + sin * total)
    else:
        inside = sin * total
    return 0.5 + inside / 2
