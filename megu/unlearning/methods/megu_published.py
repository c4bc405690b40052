"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12) as in the paper, read literally.

Every forget sample carries the noise at full scale and is trained on its single label; retain samples on theirs; Adam over both
together. Values that the paper does not state (rate, batch) suit a small network on Fashion-MNIST. `megu.unlearning.methods.megu` is
our adaptation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import adam, check_training, drawn, shuffled, teach
from megu.unlearning.methods.context import Context, Method, Span, require
from megu.unlearning.methods.feature_noise import Noise


@dataclass(frozen=True, kw_only=True)
class MeguPublishedParams:
    """alpha: share of the positive noise in the mixture. retain_samples: drawn once from the retain set. epochs, lr, batch_size: Adam over
    forget set and drawn retain samples together, the rate falling to 0. noise_share, noise_scale: as for megu; 1 is the
    paper's."""

    __pydantic_config__ = STRICT

    alpha: float = 0.7
    epochs: int = 3
    lr: float = 0.001
    batch_size: int = 256
    retain_samples: int = 10_000
    noise_share: float = 1.0
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check_training(self.epochs, self.lr, self.batch_size)
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")

    @property
    def positive_share(self) -> float:
        return self.alpha


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Minimise CE(f(x + N), perturbing label) over the forget set and CE(f(x), y) over retain samples, in the same batches."""
    params: MeguPublishedParams = context.params
    labels = torch.from_numpy(require(context.perturbing, "perturbing").labels)
    targets = F.one_hot(labels, context.num_classes).float()
    images = forget.joined(drawn(retain, params.retain_samples, context.seed))
    taught = torch.cat([targets.to(forget.device), F.one_hot(images.labels[len(forget) :], context.num_classes).float()])
    noise, batches = Noise(context, forget, targets), shuffled(images, context)

    def disturb(inputs: Tensor, index: Tensor, step: int) -> Tensor:
        positions = batches.at(step)
        places = torch.nonzero(positions < len(forget)).flatten()
        return noise.add(inputs, positions[places], places, step)

    return teach(
        model,
        images,
        lambda index, step: taught[index],
        F.cross_entropy,
        adam(params.lr),
        context,
        warmup=0.0,
        disturb=disturb,
    )


METHOD = Method(
    params=MeguPublishedParams,
    run=unlearn,
    title="MeGU as published: one perturbing label a forget image, under full feature noise; with perturbing.label=rank",
    paper="MeGU: Machine-Guided Unlearning with Target Feature Disentanglement, arXiv 2602.17088",
    cost="the labeler once a data set; noise; three epochs over the forget set and 10,000 retain samples",
    harder="raise unlearn.epochs or unlearn.lr",
    main={"epochs": Span(low=1, high=4, costs=True), "lr": Span(low=0.3, high=10, most=1)},
    needs=("perturbing", "noise", "retain"),
)
