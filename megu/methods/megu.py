"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12), with the choices that the paper leaves open as parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.data.tensors import ImageSet
from megu.device import sent
from megu.methods.common import adam, check_training, drawn, shuffled, teach
from megu.methods.context import Context, Method, given
from megu.noise import mixture
from megu.params import STRICT, check
from megu.perturbing import MOST, Perturbing
from megu.seeds import generator


@dataclass(frozen=True, kw_only=True)
class MeguParams:
    """alpha: share of the positive noise in the mixture (the paper's 0.7). retain_samples: drawn once from the retain set
    (the paper's 10,000). epochs, lr, batch_size: Adam over forget set and drawn retain samples together, one-cycle rate.

    noise_share: share of the forget samples in a batch that carry noise, drawn anew each step; noise_scale: the mixture is
    multiplied by it. With all of them at full scale (the paper, read literally) a network can learn the noise and still know
    the clean class. noise_sides: "positive" or "negative" alone is the ablation of the other side (alpha 1 or 0).

    entropy_gain: how fast the sharpness of soft targets follows the model that is being taught (`SoftTargets`); 0 leaves it as
    it was fitted beforehand. Ours, not the paper's; without effect on rank labels and on a sharpness that was given.
    """

    __pydantic_config__ = STRICT

    alpha: float = 0.7
    epochs: int = 2
    lr: float = 0.001
    batch_size: int = 256
    retain_samples: int = 10_000
    noise_share: float = 0.5
    noise_scale: float = 0.1
    noise_sides: Literal["both", "positive", "negative"] = "both"
    entropy_gain: float = 0.2

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check_training(self.epochs, self.lr, self.batch_size)
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")
        check("entropy_gain", self.entropy_gain, 0 <= self.entropy_gain <= 10, "between 0 and 10")

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
    perturbing = given(context.perturbing, "perturbing")
    kept = drawn(retain, params.retain_samples, context.seed)
    images = forget.joined(kept)
    true = F.one_hot(images.labels, context.num_classes).float()
    targets = SoftTargets(perturbing, params.entropy_gain).to(forget.device)
    noise = (
        None
        if "noise" in spares(params)
        else Noise(context, forget, torch.from_numpy(perturbing.targets), shuffled(images, context).at)
    )

    def loss_of(logits: Tensor, index: Tensor, step: int) -> Tensor:
        forgets = index < len(forget)
        rows = index.clamp(max=len(forget) - 1)
        loss = F.cross_entropy(logits, torch.where(forgets[:, None], targets.at(rows), true[index]))
        clean = forgets if noise is None else forgets.index_fill(0, sent(noise.carriers(step), index.device), False)
        targets.follow(logits.detach(), clean)
        return loss

    return teach(
        model,
        images,
        loss_of,
        adam(params.lr),
        context,
        warmup=0.0,
        disturb=noise.add if noise else None,
        beside=targets,
    )


class SoftTargets(nn.Module):
    """What the forget samples are taught: the perturbing targets, their sharpness following the model that learns them.

    A network taught distributions of a certain entropy ends less sure than they are: it learns their mean where it cannot tell the
    samples apart, and noise on the samples blurs it further. So the exponent on R is steered: after each step its logarithm grows by
    gain times the difference between the mean entropy of the model's answers for the clean forget samples of the batch and the
    entropy that a model which never saw the forget set is expected to have (`megu.head`). Beyond `megu.perturbing.MOST` it stays.

    Targets that are not to be fitted (rank labels, a given sharpness; ``perturbing.entropy`` is None) are taught as they are.
    """

    log_sharpness: Tensor
    log_reasoning: Tensor
    fixed: Tensor

    def __init__(self, perturbing: Perturbing, gain: float) -> None:
        super().__init__()
        self.gain, self.entropy = gain, perturbing.entropy
        with np.errstate(divide="ignore"):
            logs = torch.from_numpy(np.log(perturbing.reasoning).astype(np.float32))
        # The state that a checkpoint must have; the rest is given anew.
        self.register_buffer("log_sharpness", torch.tensor(math.log(perturbing.sharpness)))
        self.register_buffer("log_reasoning", logs, persistent=False)
        self.register_buffer("fixed", torch.from_numpy(perturbing.targets), persistent=False)

    @property
    def follows(self) -> bool:
        return bool(self.gain) and self.entropy is not None

    def at(self, rows: Tensor) -> Tensor:
        """float32 (B, K), the present targets of the forget samples at ``rows``; rows sum to 1."""
        if not self.follows:
            return self.fixed[rows]
        return torch.softmax(self.log_sharpness.exp() * self.log_reasoning[rows], dim=1)

    def follow(self, logits: Tensor, clean: Tensor) -> None:
        """Take in a batch's answers. logits: (B, K); clean: bool (B,), the forget samples without noise; none of them changes nothing."""
        if self.entropy is None or not self.gain:
            return
        logs = torch.log_softmax(logits, dim=1)
        entropies = -(logs.exp() * logs).sum(dim=1)
        # No branch on the number of clean samples: it would wait for the device.
        excess = torch.where(clean, entropies - self.entropy, 0).sum() / clean.sum().clamp(min=1)
        self.log_sharpness.add_(self.gain * excess).clamp_(-math.log(MOST), math.log(MOST))


class Noise:
    """Puts the mixed noise of each forget sample on it: positive of the label it is taught (drawn from its target), negative of its own."""

    def __init__(self, context: Context, forget: ImageSet, targets: Tensor, positions: Callable[[int], Tensor]) -> None:
        """positions: int64 (B,) on the CPU, of the images in the batch of a step."""
        self.params: MeguParams = context.params
        self.seed = context.seed
        self.positions = positions
        self.targets = targets.cpu()
        bank = given(context.noise, "noise")
        self.positive = torch.from_numpy(bank.positive).to(forget.device)
        self.negative = torch.from_numpy(bank.negative).to(forget.device)
        row = torch.full((context.num_classes,), -1)
        row[torch.from_numpy(bank.negative_classes)] = torch.arange(len(bank.negative_classes))
        self.own = row[forget.labels.cpu()]
        if (self.own < 0).any():
            raise ValueError("the noise bank has no negative noise for a class in the forget set")

    def carriers(self, step: int) -> Tensor:
        """int64, on the CPU: the places in the batch of ``step`` whose samples carry noise."""
        where = torch.nonzero(self.positions(step) < len(self.own)).flatten()
        chosen = torch.rand(len(where), generator=generator(self.seed, "carriers", step)) < self.params.noise_share
        return where[chosen]

    def add(self, inputs: Tensor, index: Tensor, step: int) -> Tensor:
        """``inputs`` (B, C, H, W) with noise on a share of those that are forget samples (positions below the forget set's size)."""
        where = self.carriers(step)
        if not len(where):
            return inputs
        random = generator(self.seed, "noise", step)
        samples = self.positions(step)[where]
        label = torch.multinomial(self.targets[samples], 1, generator=random).flatten()
        which = torch.randint(self.positive.shape[1], (2, len(where)), generator=random)
        drawn = sent(torch.stack([where, label, which[0], self.own[samples], which[1]]), inputs.device)
        mixed = mixture(self.positive[drawn[1], drawn[2]], self.negative[drawn[3], drawn[4]], self.params.positive_share)
        return inputs.index_add(0, drawn[0], self.params.noise_scale * mixed)


METHOD = Method(
    params=MeguParams,
    run=unlearn,
    title="Teach what a labeler says forget images look like, under feature noise, beside a sample of the retain set",
    paper="MeGU: Machine-Guided Unlearning with Target Feature Disentanglement, arXiv 2602.17088",
    cost="the labeler once a data set; a proxy on a tenth of the retain set where the original has memorised; noise; a few epochs",
    harder="raise unlearn.epochs or unlearn.lr",
    needs=("perturbing", "noise", "retain"),
    spares=spares,
)
