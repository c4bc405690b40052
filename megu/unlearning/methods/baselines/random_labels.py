"""Amnesiac unlearning by random labels: train each forget sample on a randomly drawn wrong class (Graves et al., AAAI 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from megu.core.params import STRICT
from megu.core.seeds import generator
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import adam, allowed, check_training, teach, wrong_labels
from megu.unlearning.methods.context import Context, Method, Span


@dataclass(frozen=True, kw_only=True)
class RandomLabelsParams:
    """epochs, lr, batch_size: Adam at a constant rate over all retain and forget samples together."""

    __pydantic_config__ = STRICT

    epochs: int = 3
    lr: float = 1e-4
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_training(self.epochs, self.lr, self.batch_size)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise CE(f(x), label), where a forget sample's label is uniform over the allowed wrong classes, drawn once."""
    params: RandomLabelsParams = context.params
    mask = allowed(forget.labels, context.forgotten, context.num_classes)
    labels = torch.cat([wrong_labels(mask, generator(context.seed, "labels")), retain.labels])
    return teach(
        model,
        forget.joined(retain),
        lambda index, step: labels[index],
        F.cross_entropy,
        adam(params.lr),
        context,
    )


METHOD = Method(
    params=RandomLabelsParams,
    run=unlearn,
    title="Teach each forget image a random wrong class, beside the whole retain set (Amnesiac)",
    paper="Graves et al., Amnesiac machine learning, AAAI 2021",
    cost="three epochs over all of the data",
    harder="raise unlearn.lr or unlearn.epochs",
    main={"lr": Span(low=0.3, high=10, most=1), "epochs": Span(low=1, high=3, costs=True)},
    needs=("retain",),
)
