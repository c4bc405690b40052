"""Measure how sure a distribution is, and make it as sure as desired: raise it to a power and normalise it again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The sharpest exponent: beyond it any distribution of interest is one-hot in float32.
MOST = 100.0
#: How often the interval of the exponent's logarithm is halved; this gives five digits.
_HALVINGS = 24


def sharpened(logarithms: Tensor, exponents: Tensor) -> Tensor:
    """Raise each row of a distribution (N, K), passed as logarithms, to its exponent (N,); rows sum to 1. Minus infinity stays 0."""
    return torch.softmax(exponents[:, None] * logarithms, dim=1)


def entropies(distributions: Tensor) -> Tensor:
    """Return the entropy of each row, in nats: (N, K) -> (N,)."""
    found: Tensor = torch.special.entr(distributions).sum(dim=1)
    return found


def fitting_exponents(logarithms: Tensor, wanted: Tensor) -> Tensor:
    """Return, for each row of a distribution (N, K), passed as logarithms, the exponent in [1 / MOST, MOST] that gives it the entropy
    ``wanted`` (N,), in nats, or comes nearest to it.

    The entropy falls as the exponent rises, so this is a bisection on the logarithm. It never waits for the device.
    """
    reach = math.log(MOST)
    low, high = torch.full_like(wanted, -reach), torch.full_like(wanted, reach)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_flat = entropies(sharpened(logarithms, middle.exp())) > wanted
        low, high = torch.where(too_flat, middle, low), torch.where(too_flat, high, middle)
    return ((low + high) / 2).exp()
