"""SCRUB: disobey the original on the forget set, then obey it on the retain set, in turn (Kurmanji et al., NeurIPS 2023, Eq 1-3)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.core.seeds import derive
from megu.data.tensors import ImageSet
from megu.training.loop import Batches, Objective, forward
from megu.unlearning.methods.common import answers, check_training, descend, kl, sgd
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class ScrubParams:
    """msteps: how many of the epochs begin with a pass over the forget set. gamma, alpha: weights of cross-entropy and of KL on the
    retain set. temperature: of the KL, which is multiplied by its square. epochs, lr, weight_decay: SGD at a constant rate.
    batch_size, forget_batch_size: images per step on the retain set and on the forget set.
    """

    __pydantic_config__ = STRICT

    epochs: int = 3
    msteps: int = 2
    lr: float = 5e-4
    weight_decay: float = 5e-4
    gamma: float = 0.99
    alpha: float = 0.001
    temperature: float = 4.0
    batch_size: int = 128
    forget_batch_size: int = 32

    def __post_init__(self) -> None:
        check_training(self.epochs, self.lr, self.batch_size)
        check("msteps", self.msteps, 0 <= self.msteps <= self.epochs, "between 0 and epochs")
        check("weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "at least 0 and below 1")
        check("gamma", self.gamma, 0 <= self.gamma <= 1000, "between 0 and 1000")
        check("alpha", self.alpha, 0 <= self.alpha <= 1000, "between 0 and 1000")
        check("temperature", self.temperature, 0 < self.temperature <= 100, "above 0 and at most 100")
        check("forget_batch_size", self.forget_batch_size, self.forget_batch_size >= 2, "at least 2")


@dataclass(frozen=True)
class Turn:
    """maximise: whether the step is on the forget set. at: its number among the steps of that kind."""

    maximise: bool
    at: int


def turns(epochs: int, msteps: int, forget_steps: int, retain_steps: int) -> list[Turn]:
    """Return every step in order: in each epoch the retain set, preceded in the first ``msteps`` epochs by the forget set."""
    plan = []
    for epoch in range(epochs):
        if epoch < msteps:
            plan += [Turn(True, epoch * forget_steps + at) for at in range(forget_steps)]
        plan += [Turn(False, epoch * retain_steps + at) for at in range(retain_steps)]
    return plan


def maximised(logits: Tensor, teacher: Tensor, params: ScrubParams) -> Tensor:
    """Return the loss on a forget batch: ``-KL(teacher || student)``."""
    return -kl(logits, torch.softmax(teacher / params.temperature, dim=1), params.temperature)


def minimised(logits: Tensor, teacher: Tensor, labels: Tensor, params: ScrubParams) -> Tensor:
    """Return the loss on a retain batch: ``gamma * CE + alpha * KL(teacher || student)``."""
    obeyed = kl(logits, torch.softmax(teacher / params.temperature, dim=1), params.temperature)
    return params.gamma * F.cross_entropy(logits, labels) + params.alpha * obeyed


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Take all turns with one optimiser. The teacher is frozen and in evaluation mode, so it predicts once."""
    params: ScrubParams = context.params
    device = forget.device
    losing = Batches(len(forget), params.forget_batch_size, derive(context.seed, "forget batches"))
    keeping = Batches(len(retain), params.batch_size, derive(context.seed, "retain batches"))
    plan = turns(params.epochs, params.msteps, losing.per_epoch, keeping.per_epoch)
    forget_answers, retain_answers = answers(model, forget), answers(model, retain)
    student = copy.deepcopy(model)

    def batch_at(step: int) -> tuple[Tensor, ...]:
        """Return images and the teacher's predictions; for a step on the retain set also the labels."""
        turn = plan[step]
        if turn.maximise:
            return forget.batch(losing.at(turn.at, forget.home)), forget_answers[losing.at(turn.at, device)]
        index = keeping.at(turn.at, device)
        return retain.batch(keeping.at(turn.at, retain.home)), retain_answers[index], retain.labels[index]

    def loss_of(images: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = forward(student, images)
        return maximised(logits, teacher, params) if labels is None else minimised(logits, teacher, labels, params)

    descend(
        student,
        Objective(batch_at, loss_of),
        sgd(params.lr, params.weight_decay)(student),
        context,
        epochs=1,
        per_epoch=len(plan),
        batch_size=params.batch_size,
        seen=forget.joined(retain),
    )
    return student


METHOD = Method(
    params=ScrubParams,
    run=unlearn,
    title="Push away from the original on the forget set, then towards it on the retain set, in turn",
    paper="Kurmanji et al., Towards unbounded machine unlearning, NeurIPS 2023 (SCRUB)",
    cost="three epochs over the retain set and two over the forget set",
    harder="raise unlearn.msteps (at most unlearn.epochs) or unlearn.lr",
    main={"lr": Span(low=0.3, high=3, most=1), "epochs": Span(low=1, high=3, costs=True)},
    needs=("retain",),
)
