"""Intervals over a handful of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float], level: float = 0.95) -> dict[str, float]:
    """Return mean, low and high of the t interval, standard deviation and n. With one value the interval is unknown: NaN.

    Two or more values need SciPy, which a single retrain can do without.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan, "std": math.nan, "n": n}
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second longer to import

    std = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * std / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "std": std, "n": n}
