"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12), with the choices that the paper leaves open as parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.data.tensors import ImageSet
from megu.methods.common import adam, check_training, drawn, teach
from megu.methods.context import Context, Method, given
from megu.noise import mixture
from megu.params import STRICT, check
from megu.seeds import generator


@dataclass(frozen=True, kw_only=True)
class MeguParams:
    """alpha: share of the positive noise in the mixture (the paper's 0.7). retain_samples: drawn once from the retain set
    (the paper's 10,000). epochs, lr, batch_size: Adam over forget set and drawn retain samples together, one-cycle rate.

    noise_share: share of the forget samples in a batch that carry noise, drawn anew each step; noise_scale: the mixture is
    multiplied by it. With all of them at full scale (the paper, read literally) a network can learn the noise and still know
    the clean class. noise_sides: "positive" or "negative" alone is the ablation of the other side (alpha 1 or 0).
    """

    __pydantic_config__ = STRICT

    alpha: float = 0.7
    epochs: int = 2
    lr: float = 0.001
    batch_size: int = 256
    retain_samples: int = 10_000
    noise_share: float = 0.5
    noise_scale: float = 1.0
    noise_sides: Literal["both", "positive", "negative"] = "both"

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check_training(self.epochs, self.lr, self.batch_size)
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")

    @property
    def positive_share(self) -> float:
        """The share of the positive noise that is used, the ablations included."""
        return {"both": self.alpha, "positive": 1.0, "negative": 0.0}[self.noise_sides]


def spares(params: MeguParams) -> frozenset[str]:
    """Without any noise in the training there is none to be made."""
    return frozenset() if params.noise_share and params.noise_scale else frozenset({"noise"})


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Teach the perturbing targets on the (noisy) forget set and the true labels on retain samples, in the same batches.

    Returns a new model on the device of the images; ``model`` stays as it is.
    """
    params: MeguParams = context.params
    kept = drawn(retain, params.retain_samples, context.seed)
    taught = torch.from_numpy(given(context.perturbing, "perturbing").targets).to(forget.device)
    targets = torch.cat([taught, F.one_hot(kept.labels, context.num_classes).float()])
    noise = None if "noise" in spares(params) else Noise(context, forget, taught)
    return teach(
        model,
        forget.joined(kept),
        lambda logits, index, step: F.cross_entropy(logits, targets[index]),
        adam(params.lr),
        context,
        warmup=0.0,
        disturb=noise.add if noise else None,
    )


class Noise:
    """Puts the mixed noise of each forget sample on it: positive of the label it is taught (drawn from its target), negative of its own."""

    def __init__(self, context: Context, forget: ImageSet, targets: Tensor) -> None:
        self.params: MeguParams = context.params
        self.seed = context.seed
        self.targets = targets.cpu()
        bank = given(context.noise, "noise")
        self.positive = torch.from_numpy(bank.positive).to(forget.device)
        self.negative = torch.from_numpy(bank.negative).to(forget.device)
        row = torch.full((context.num_classes,), -1)
        row[torch.from_numpy(bank.negative_classes)] = torch.arange(len(bank.negative_classes))
        self.own = row[forget.labels.cpu()]
        if (self.own < 0).any():
            raise ValueError("the noise bank has no negative noise for a class in the forget set")

    def add(self, inputs: Tensor, index: Tensor, step: int) -> Tensor:
        """``inputs`` (B, C, H, W) with noise on a share of those that are forget samples (positions below the forget set's size)."""
        random = generator(self.seed, "noise", step)
        where = torch.nonzero(index.cpu() < len(self.own)).flatten()
        where = where[torch.rand(len(where), generator=random) < self.params.noise_share]
        if not len(where):
            return inputs
        samples = index.cpu()[where]
        label = torch.multinomial(self.targets[samples], 1, generator=random).flatten()
        which = torch.randint(self.positive.shape[1], (2, len(where)), generator=random)
        mixed = mixture(self.positive[label, which[0]], self.negative[self.own[samples], which[1]], self.params.positive_share)
        return inputs.index_add(0, where.to(inputs.device), self.params.noise_scale * mixed)


METHOD = Method(
    params=MeguParams,
    run=unlearn,
    title="Teach what a labeler says forget images look like, under feature noise, beside a sample of the retain set",
    paper="MeGU: Machine-Guided Unlearning with Target Feature Disentanglement, arXiv 2602.17088",
    cost="the labeler once a data set; noise images; a few epochs over the forget set and a sample of the retain set",
    needs=("perturbing", "noise", "retain"),
    spares=spares,
)
