"""SalUn: random labels, on the weights that the forget set's gradient moves most (Fan et al., ICLR 2024, Eq 3-5).

The mask follows the paper's Eq 3: gradients at the original's weights. (The public code lets the weights move while it sums.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.device import sent
from megu.core.params import STRICT, check
from megu.core.seeds import generator
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import MakeOptimiser, allowed, check_training, each_gradient, sgd, teach, wrong_labels
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class SalunParams:
    """share: share of all weights that may change. epochs, lr, batch_size, weight_decay: SGD at a constant rate on the forget and the
    retain set together.
    """

    __pydantic_config__ = STRICT

    share: float = 0.5
    epochs: int = 10
    lr: float = 0.013
    batch_size: int = 256
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        check("share", self.share, 0 < self.share <= 1, "above 0 and at most 1")
        check_training(self.epochs, self.lr, self.batch_size)
        check("weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "at least 0 and below 1")


def summed(model: nn.Module, forget: ImageSet, batch_size: int, seed: int) -> list[Tensor]:
    """Return the sum of the gradients of the forget batches, one tensor per parameter."""
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    each_gradient(model, forget, batch_size, seed, "saliency", lambda found: torch._foreach_add_(total, found))
    return total


def salient(gradient: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return bool, one tensor per parameter: True for the ``share`` of all weights together with the largest absolute gradient.

    At least one; ties go to the earlier weight.
    """
    every = torch.cat([entry.abs().flatten() for entry in gradient])
    best = torch.argsort(every, descending=True, stable=True)[: max(int(share * len(every)), 1)]
    mask = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    mask[best] = True
    parts = torch.split(mask, [entry.numel() for entry in gradient])
    # In the gradient's memory layout, which the masked gradient then keeps: CUDA's fused optimiser refuses a different one.
    return [
        torch.empty_like(entry, dtype=torch.bool).copy_(part.view(entry.shape))
        for part, entry in zip(parts, gradient, strict=True)
    ]


def masked_sgd(masks: Sequence[Tensor], lr: float, weight_decay: float) -> MakeOptimiser:
    """Return SGD with gradients of 0 outside the masks; the weight decay acts inside them (SGD's own would move every weight)."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())

        def mask(optimiser: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
            for parameter, kept in zip(parameters, masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad = torch.where(kept, parameter.grad + weight_decay * parameter.detach(), 0.0)

        optimiser = sgd(lr)(model)
        optimiser.register_step_pre_hook(mask)
        return optimiser

    return make


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise CE(f(x), label) over both sets on the salient weights; a forget sample's wrong label is drawn anew each epoch.

    Batch-norm statistics are not weights: they follow the training.
    """
    params: SalunParams = context.params
    masks = salient(summed(model, forget, params.batch_size, context.seed), params.share)
    # On the CPU, where the labels are drawn: a step must not wait for the device.
    mask = allowed(forget.labels.cpu(), context.forgotten, context.num_classes)
    images = forget.joined(retain)
    per_epoch = max(len(images) // params.batch_size, 1)
    drawn: dict[int, Tensor] = {}

    def labels(epoch: int) -> Tensor:
        if epoch not in drawn:
            drawn.clear()
            wrong = wrong_labels(mask, generator(context.seed, "labels", epoch))
            drawn[epoch] = torch.cat([sent(wrong, retain.device), retain.labels])
        return drawn[epoch]

    return teach(
        model,
        images,
        lambda index, step: labels(step // per_epoch)[index],
        F.cross_entropy,
        masked_sgd(masks, params.lr, params.weight_decay),
        context,
    )


METHOD = Method(
    params=SalunParams,
    run=unlearn,
    title="Random labels, changing only the half of the weights that the forget set's gradient is largest on",
    paper="Fan et al., SalUn: Empowering machine unlearning via gradient-based weight saliency, ICLR 2024",
    cost="ten epochs over all of the data",
    harder="raise unlearn.epochs, unlearn.lr or unlearn.share",
    main={"lr": Span(low=0.3, high=3, most=1), "share": Span(low=0.5, high=2, most=1)},
    needs=("retain",),
)
