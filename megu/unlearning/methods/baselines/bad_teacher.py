"""Bad Teacher: be like a random network on the forget set, like the original on the rest (Chundawat et al., AAAI 2023, Eq 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import adam, answers, check_training, drawn, fresh_model, kl, teach
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class BadTeacherParams:
    """retain_share: of the retain set, drawn once. temperature: of both softmaxes. epochs, lr, batch_size: Adam at a constant rate."""

    __pydantic_config__ = STRICT

    retain_share: float = 0.3
    temperature: float = 1.0
    epochs: int = 1
    lr: float = 1e-4
    batch_size: int = 256

    def __post_init__(self) -> None:
        check("retain_share", self.retain_share, 0 < self.retain_share <= 1, "above 0 and at most 1")
        check("temperature", self.temperature, 0 < self.temperature <= 100, "above 0 and at most 100")
        check_training(self.epochs, self.lr, self.batch_size)


def taught(bad: nn.Module, good: nn.Module, forget: ImageSet, kept: ImageSet, temperature: float) -> Tensor:
    """Return float32 (N, K): the bad teacher's predictions for the forget set, then the good one's for the retain samples."""
    logits = torch.cat([answers(bad, forget), answers(good, kept)])
    return torch.softmax(logits / temperature, dim=1)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise KL(teacher || f) over both sets together. The teachers are frozen and in evaluation mode, so each predicts once.

    The public code also divides the KL by the number of classes; under Adam that changes nothing.
    """
    params: BadTeacherParams = context.params
    kept = drawn(retain, max(int(params.retain_share * len(retain)), 1), context.seed)
    targets = taught(fresh_model(context, "bad teacher", forget.device), model, forget, kept, params.temperature)
    return teach(
        model,
        forget.joined(kept),
        lambda index, step: targets[index],
        lambda logits, answered: kl(logits, answered, params.temperature),
        adam(params.lr),
        context,
    )


METHOD = Method(
    params=BadTeacherParams,
    run=unlearn,
    title="Distil a random network on the forget set and the original on a share of the retain set",
    paper="Chundawat et al., Can bad teaching induce forgetting?, AAAI 2023",
    cost="an epoch over the forget set and 30% of the retain set, and asking the teachers once",
    harder="raise unlearn.epochs or unlearn.lr",
    main={"lr": Span(low=0.3, high=10, most=1), "epochs": Span(low=1, high=4, costs=True)},
    needs=("retain",),
)
