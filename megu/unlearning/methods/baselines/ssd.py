"""Selective synaptic dampening: shrink the weights that matter more to the forget set than to all (Foster et al., AAAI 2024, Eq 3-4).

No training. The importance is the public code's: squared gradients of batches, not of samples (``batch_size`` 1 gives the paper's
diagonal of the Fisher information).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import each_gradient
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class SsdParams:
    """alpha: how many times more important to the forget set a weight must be to be dampened (the code's 10 for ResNets; for ViTs 5
    for a class, 25 for a sub-class, 10 for random samples). lam: how little is left of it. batch_size: images per gradient.
    """

    __pydantic_config__ = STRICT

    alpha: float = 10.0
    lam: float = 1.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        check("alpha", self.alpha, self.alpha > 0, "above 0")
        check("lam", self.lam, self.lam >= 0, "at least 0")
        check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")


def importance(model: nn.Module, images: ImageSet, batch_size: int, seed: int, label: str) -> list[Tensor]:
    """Return the mean over the batches of the squared gradient of their cross-entropy, one tensor per parameter."""
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    batches = each_gradient(model, images, batch_size, seed, label, lambda found: torch._foreach_addcmul_(total, found, found))
    return [entry / batches for entry in total]


def dampened(weight: Tensor, every: Tensor, forget: Tensor, alpha: float, lam: float) -> Tensor:
    """Return ``weight * min(lam * I / I_f, 1)`` where ``I_f > alpha * I``, ``weight`` elsewhere. every: I. forget: I_f."""
    factor = (lam * every / forget).clamp(max=1.0)
    return torch.where(forget > alpha * every, weight * factor, weight)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Dampen the parameters of a copy; buffers (batch-norm statistics) stay the same. Gradients are taken in evaluation mode.

    Raises `MeguError` when an importance is not finite.
    """
    params: SsdParams = context.params
    lost = importance(model, forget, params.batch_size, context.seed, "importance to the forget set")
    every = importance(model, forget.joined(retain), params.batch_size, context.seed, "importance to all")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (*lost, *every)):
        raise MeguError("ssd: the importance of a weight is not finite", "neither is the original's loss: check its training")
    unlearned = copy.deepcopy(model)
    replace_parameters(
        unlearned,
        [
            dampened(weight, whole, part, params.alpha, params.lam)
            for weight, whole, part in zip(model.parameters(), every, lost, strict=True)
        ],
    )
    return unlearned.eval()


@torch.no_grad()
def replace_parameters(model: nn.Module, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)


METHOD = Method(
    params=SsdParams,
    run=unlearn,
    title="Dampen the weights that matter more to the forget set than to all of the data; no training",
    paper="Foster et al., Fast machine unlearning without retraining through selective synaptic dampening, AAAI 2024 (SSD)",
    cost="a forward and backward pass over all of the data",
    harder="lower unlearn.alpha or unlearn.lam",
    main={"alpha": Span(low=0.1, high=3), "lam": Span(low=0.3, high=3)},
    needs=("retain",),
)
