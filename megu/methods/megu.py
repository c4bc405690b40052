"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12), with the choices that the paper leaves open as parameters."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.data.tensors import ImageSet
from megu.device import fast_dtype
from megu.methods.context import Context
from megu.noise import mixture
from megu.params import STRICT, check
from megu.seeds import derive, generator
from megu.training import Batches, fingerprint, one_cycle, optimise


@dataclass(frozen=True, kw_only=True)
class MeguParams:
    """alpha: share of the positive noise in the mixture (the paper's 0.7). retain_samples: drawn once from the retain set
    (the paper's 10,000). epochs, lr, batch_size: Adam over forget set and drawn retain samples together, one-cycle rate.

    noise_share: share of the forget samples in a batch that carry noise, drawn anew each step; noise_scale: the mixture is
    multiplied by it. With all of them at full scale (the paper, read literally) a network can learn the noise and still know
    the clean class.
    """

    __pydantic_config__ = STRICT

    alpha: float = 0.7
    epochs: int = 2
    lr: float = 0.001
    batch_size: int = 256
    retain_samples: int = 10_000
    noise_share: float = 0.5
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check("lr", self.lr, 0 < self.lr <= 1, "above 0 and at most 1")
        check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Teach the perturbing targets on the (noisy) forget set and the true labels on retain samples, in the same batches.

    Returns a new model on the device of the images; ``model`` stays as it is.
    """
    params: MeguParams = context.params
    device, seed = forget.device, context.seed
    drawn = torch.randperm(len(retain), generator=generator(seed, "retain"))[: params.retain_samples].sort().values
    kept = retain.subset(drawn)
    images = ImageSet(torch.cat([forget.images, kept.images]), torch.cat([forget.labels, kept.labels]), forget.mean, forget.std)
    taught = torch.from_numpy(context.perturbing.targets).to(device)
    targets = torch.cat([taught, F.one_hot(kept.labels, context.num_classes).float()])
    noise = Noise(context, forget, taught) if params.noise_share and params.noise_scale else None
    batches = Batches(len(images), params.batch_size, derive(seed, "unlearn"))
    steps = params.epochs * batches.per_epoch
    unlearned = copy.deepcopy(model)
    dtype = fast_dtype(device)

    def loss_at(step: int) -> Tensor:
        index = batches.at(step).to(device)
        inputs = images.batch(index)
        if noise is not None:
            inputs = noise.add(inputs, index, step)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = unlearned(inputs)
        return F.cross_entropy(logits.float(), targets[index])

    optimise(
        unlearned,
        torch.optim.Adam(unlearned.parameters(), lr=params.lr),
        loss_at,
        lambda step: one_cycle(step, steps, params.lr, warmup=0.0),
        steps,
        seed=seed,
        key=f"{asdict(params)} {seed} {fingerprint(images)}" if context.checkpoint else "",
        checkpoint=context.checkpoint,
        label="unlearn",
        batch_size=params.batch_size,
    )
    return unlearned


class Noise:
    """Puts the mixed noise of each forget sample on it: positive of the label it is taught (drawn from its target), negative of its own."""

    def __init__(self, context: Context, forget: ImageSet, targets: Tensor) -> None:
        self.params: MeguParams = context.params
        self.seed = context.seed
        self.targets = targets.cpu()
        self.positive = torch.from_numpy(context.noise.positive).to(forget.device)
        self.negative = torch.from_numpy(context.noise.negative).to(forget.device)
        row = torch.full((context.num_classes,), -1)
        row[torch.from_numpy(context.noise.negative_classes)] = torch.arange(len(context.noise.negative_classes))
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
        mixed = mixture(self.positive[label, which[0]], self.negative[self.own[samples], which[1]], self.params.alpha)
        return inputs.index_add(0, where.to(inputs.device), self.params.noise_scale * mixed)
