"""How sure a distribution is, and how it is made as sure as is wanted: raised to a power and normalised again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The sharpest exponent: beyond it a distribution is one-hot to float32 for any that is of interest.
MOST = 100.0
#: Of the interval of the exponent's logarithm; after them it is known to five digits.
_HALVINGS = 24


def sharpened(logarithms: Tensor, exponents: Tensor) -> Tensor:
    """Each row of a distribution (N, K), given by its logarithms, to the power of its exponent (N,); rows sum to 1. Minus infinity stays 0."""
    return torch.softmax(exponents[:, None] * logarithms, dim=1)


def entropies(distributions: Tensor) -> Tensor:
    """The entropy of each row, in nats: (N, K) -> (N,)."""
    found: Tensor = torch.special.entr(distributions).sum(dim=1)
    return found


def fitting_exponents(logarithms: Tensor, wanted: Tensor) -> Tensor:
    """For each row of a distribution (N, K), given by its logarithms, the exponent in [1 / MOST, MOST] that gives it the entropy ``wanted``
    (N,), in nats, or comes nearest to it.

    The entropy falls as the exponent rises, so this is a bisection, on the logarithm. It asks nothing of the device.
    """
    reach = math.log(MOST)
    low, high = torch.full_like(wanted, -reach), torch.full_like(wanted, reach)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_flat = entropies(sharpened(logarithms, middle.exp())) > wanted
        low, high = torch.where(too_flat, middle, low), torch.where(too_flat, high, middle)
    return ((low + high) / 2).exp()
