"""The feature-noise pair in a training batch (MeGU, arXiv 2602.17088, Eq 11-12)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from megu.core.device import sent
from megu.core.seeds import generator
from megu.data.tensors import ImageSet
from megu.unlearning.methods.context import Context, require
from megu.unlearning.noise import mixture


class NoiseParams(Protocol):
    """The parameters of a method that concern the noise."""

    @property
    def noise_share(self) -> float: ...
    @property
    def noise_scale(self) -> float: ...
    @property
    def positive_share(self) -> float: ...


class Noise:
    """Add to each forget sample its mixed noise: positive for the label it is trained on (drawn from its target), negative for its own.

    Labels without positive noise in the bank are not drawn.
    """

    def __init__(self, context: Context, forget: ImageSet, targets: Tensor) -> None:
        self.params: NoiseParams = context.params
        self.seed = context.seed
        bank = require(context.noise, "noise")
        self.positive = torch.from_numpy(bank.positive).to(forget.device)
        self.negative = torch.from_numpy(bank.negative).to(forget.device)
        drawn = targets.cpu().double()[:, torch.from_numpy(bank.positive_classes)]
        # A sample whose target has no label in the bank draws from all labels in it.
        self.targets = torch.where(drawn.sum(dim=1, keepdim=True) > 0, drawn, 1.0)
        row = torch.full((context.num_classes,), -1)
        row[torch.from_numpy(bank.negative_classes)] = torch.arange(len(bank.negative_classes))
        self.own = row[forget.labels.cpu()]
        if (self.own < 0).any():
            raise ValueError("the noise bank has no negative noise for a class in the forget set")

    def carriers(self, count: int, step: int) -> Tensor:
        """Return bool (count,), on the CPU: which of the forget samples of a batch carry noise at this step."""
        return torch.rand(count, generator=generator(self.seed, "carriers", step)) < self.params.noise_share

    def add(self, inputs: Tensor, samples: Tensor, places: Tensor, step: int) -> Tensor:
        """Return ``inputs`` (B, C, H, W) with noise on a share of the forget samples ``samples``, int64 (S,), at ``places`` (S,) in it.

        Both are on the CPU: reading them from the device would mean waiting for it.
        """
        carries = self.carriers(len(samples), step)
        where, chosen = places[carries], samples[carries]
        if not len(where):
            return inputs
        random = generator(self.seed, "noise", step)
        row = torch.multinomial(self.targets[chosen], 1, generator=random).flatten()
        which = torch.randint(self.positive.shape[1], (2, len(where)), generator=random)
        drawn = sent(torch.stack([where, row, which[0], self.own[chosen], which[1]]), inputs.device)
        mixed = mixture(self.positive[drawn[1], drawn[2]], self.negative[drawn[3], drawn[4]], self.params.positive_share)
        return inputs.index_add(0, drawn[0], self.params.noise_scale * mixed)
