"""Boundary Shrink: teach each forget image the wrong class that is nearest across the boundary (Chen et al., CVPR 2023, Eq 4-6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.data.tensors import ImageSet
from megu.training.loop import ASKED
from megu.unlearning.methods.common import allowed, check_training, evaluating, sgd, teach
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class BoundaryShrinkParams:
    """bound: how far a pixel is moved to look across the boundary, as a share of its range. epochs, lr, batch_size: SGD on the forget set
    alone."""

    __pydantic_config__ = STRICT

    bound: float = 0.1
    epochs: int = 10
    lr: float = 1e-5
    batch_size: int = 64

    def __post_init__(self) -> None:
        check("bound", self.bound, 0 < self.bound <= 1, "above 0 and at most 1")
        check_training(self.epochs, self.lr, self.batch_size)


def moved(model: nn.Module, images: ImageSet, index: slice, bound: float) -> Tensor:
    """Apply the fast gradient sign method: move each pixel by ``bound`` up the model's loss, clipped and rounded; normalised float32."""
    inputs = images.batch(index).requires_grad_(True)
    loss = F.cross_entropy(model(inputs), images.labels[index], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    # The normalisation is increasing in each pixel, so the sign is that for the pixel.
    return images.normalise((images.raw(index).float() + 255 * bound * gradient.sign()).clamp(0, 255).round())


def nearest_wrong(model: nn.Module, forget: ImageSet, mask: Tensor, bound: float) -> Tensor:
    """Return int64 (N,): the likeliest class of the moved image among those that ``mask`` (N, K) allows; the model is frozen."""
    found = []
    with evaluating(model):
        for start in range(0, len(forget), ASKED):
            index = slice(start, start + ASKED)
            adversarial = moved(model, forget, index, bound)
            with torch.no_grad():
                found.append(model(adversarial).masked_fill(~mask[index], -torch.inf).argmax(dim=1))
    return torch.cat(found)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise CE(f(x), nearest wrong class) over the forget set; the retain set is never used.

    The labels come from the frozen original, so they are found once. (The public code allows the true class for an image that
    stays on its side of the boundary; the paper and this code do not.)
    """
    params: BoundaryShrinkParams = context.params
    labels = nearest_wrong(model, forget, allowed(forget.labels, context.forgotten, context.num_classes), params.bound)
    return teach(
        model,
        forget,
        lambda index, step: labels[index],
        F.cross_entropy,
        sgd(params.lr),
        context,
    )


METHOD = Method(
    params=BoundaryShrinkParams,
    run=unlearn,
    title="Teach each forget image the wrong class nearest across the decision boundary; no retain data",
    paper="Chen et al., Boundary unlearning, CVPR 2023 (Boundary Shrink)",
    cost="ten epochs over the forget set alone",
    harder="raise unlearn.lr or unlearn.epochs",
    main={"lr": Span(low=0.3, high=10, most=1), "epochs": Span(low=0.5, high=2, costs=True)},
)
