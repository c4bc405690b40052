"""Fine-tuning on the retain set, in the hope that the rest is forgotten along the way (Golatkar et al., CVPR 2020, the baseline FT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import nn

from megu.core.params import STRICT, check
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import check_training, sgd, teach
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class FinetuneParams:
    """epochs, lr, batch_size, weight_decay: SGD with momentum 0.9, as the benchmark code of SSD runs it.

    schedule: "one_cycle" (up to lr over the first 30% of the steps, then down), or "constant", which is what the function
    ``fit_one_cycle`` in that code really does.
    """

    __pydantic_config__ = STRICT

    epochs: int = 5
    lr: float = 0.02
    batch_size: int = 128
    weight_decay: float = 5e-4
    schedule: Literal["one_cycle", "constant"] = "one_cycle"

    def __post_init__(self) -> None:
        check_training(self.epochs, self.lr, self.batch_size)
        check("weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "at least 0 and below 1")


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise CE(f(x), y) over the retain set; the forget set is never used."""
    params: FinetuneParams = context.params
    return teach(
        model,
        retain,
        lambda index, step: retain.labels[index],
        F.cross_entropy,
        sgd(params.lr, params.weight_decay),
        context,
        warmup=0.3 if params.schedule == "one_cycle" else None,
    )


METHOD = Method(
    params=FinetuneParams,
    run=unlearn,
    title="Go on training on the retain set alone",
    paper="Golatkar et al., Eternal sunshine of the spotless net, CVPR 2020 (baseline)",
    cost="five epochs over the retain set",
    harder="raise unlearn.lr or unlearn.epochs",
    main={"lr": Span(low=0.3, high=5, most=1), "epochs": Span(low=1, high=4, costs=True)},
    needs=("retain",),
)
