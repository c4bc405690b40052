"""DELETE: match the original's answer with the forgotten class struck out (Zhou et al., CVPR 2025, arXiv 2503.23751)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megu.core.params import STRICT
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import allowed, answers, check_training, kl, sgd, teach
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class DeleteParams:
    """epochs, lr, batch_size: SGD at a constant rate on the forget set alone, as the public code recommends for ResNet-18."""

    __pydantic_config__ = STRICT

    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_training(self.epochs, self.lr, self.batch_size)


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the classes that ``mask`` (N, K) allows; the others get 0. The rest keep the original's order."""
    return torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise KL(masked original || f) over the forget set; the retain set is never used. The original predicts once.

    When several classes are forgotten at once, all of them are struck out, so that none is learned in another's place.
    """
    params: DeleteParams = context.params
    targets = masked(answers(model, forget), allowed(forget.labels, context.forgotten, context.num_classes))
    return teach(
        model,
        forget,
        lambda index, step: targets[index],
        kl,
        sgd(params.lr),
        context,
    )


METHOD = Method(
    params=DeleteParams,
    run=unlearn,
    title="Distil the original with the forgotten class struck from its answers; no retain data",
    paper="Zhou et al., Decoupled distillation to erase, CVPR 2025, arXiv 2503.23751 (DELETE)",
    cost="twenty epochs over the forget set alone",
    harder="raise unlearn.epochs or unlearn.lr",
    main={"lr": Span(low=0.3, high=10, most=1), "epochs": Span(low=0.5, high=2, costs=True)},
)
