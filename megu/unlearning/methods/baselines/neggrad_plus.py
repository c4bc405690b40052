"""NegGrad+: descend on the retain set and ascend on the forget set at once (Kurmanji et al., NeurIPS 2023, section 4)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.core.seeds import derive
from megu.data.tensors import ImageSet
from megu.training.loop import Batches, Objective, forward
from megu.unlearning.methods.common import check_training, descend, sgd
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class NegGradPlusParams:
    """alpha: weight of the retain set's loss; the forget set's weight is 1 - alpha. epochs: over the retain set. lr, batch_size: of SGD."""

    __pydantic_config__ = STRICT

    alpha: float = 0.95
    epochs: int = 10
    lr: float = 0.01
    batch_size: int = 256

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check_training(self.epochs, self.lr, self.batch_size)


def weighted(
    retain_logits: Tensor, retain_labels: Tensor, forget_logits: Tensor, forget_labels: Tensor, alpha: float
) -> Tensor:
    """Return ``alpha * CE(retain) - (1 - alpha) * CE(forget)``."""
    return alpha * F.cross_entropy(retain_logits, retain_labels) - (1 - alpha) * F.cross_entropy(forget_logits, forget_labels)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Use one batch of each set per step, each in its own forward pass; the forget set starts over when it is exhausted."""
    params: NegGradPlusParams = context.params
    device = forget.device
    keeping = Batches(len(retain), params.batch_size, derive(context.seed, "retain batches"))
    losing = Batches(len(forget), params.batch_size, derive(context.seed, "forget batches"))
    unlearned = copy.deepcopy(model)

    def batch_at(step: int) -> tuple[Tensor, ...]:
        kept, lost = keeping.at(step, device), losing.at(step, device)
        return (
            retain.batch(keeping.at(step, retain.home)),
            retain.labels[kept],
            forget.batch(losing.at(step, forget.home)),
            forget.labels[lost],
        )

    def loss_of(kept: Tensor, kept_labels: Tensor, lost: Tensor, lost_labels: Tensor) -> Tensor:
        return weighted(forward(unlearned, kept), kept_labels, forward(unlearned, lost), lost_labels, params.alpha)

    descend(
        unlearned,
        Objective(batch_at, loss_of),
        sgd(params.lr)(unlearned),
        context,
        epochs=params.epochs,
        per_epoch=keeping.per_epoch,
        batch_size=params.batch_size,
        seen=forget.joined(retain),
    )
    return unlearned


METHOD = Method(
    params=NegGradPlusParams,
    run=unlearn,
    title="Descend on the retain set while ascending on the forget set",
    paper="Kurmanji et al., Towards unbounded machine unlearning, NeurIPS 2023 (NegGrad+)",
    cost="ten epochs over the retain set, each step with a forget batch beside it",
    harder="lower unlearn.alpha, or raise unlearn.epochs or unlearn.lr",
    main={"alpha": Span(low=0.85, high=1.05, most=1), "lr": Span(low=0.3, high=3, most=1)},
    needs=("retain",),
)
