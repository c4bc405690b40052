"""UNSIR: impair the network with noise that maximises the error on the forget classes, then repair it (Tarun et al., TNNLS 2023).

The paper forgets whole classes. Where the class stays in the data (sub-class, random and ids requests) the noise is made for the classes
of the forget samples, and the repair step has to restore what it impairs too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.params import STRICT, check
from megu.core.seeds import generator
from megu.data.tensors import ImageSet
from megu.unlearning.methods.common import Disturb, adam, teach
from megu.unlearning.methods.context import Context, Method, Span
from megu.unlearning.noise import NoiseParams, optimise_noise


@dataclass(frozen=True, kw_only=True)
class UnsirParams:
    """noises: images in a class's noise batch. copies: how often the impair step sees each. noise_steps, noise_lr: Adam on them. lam:
    weight of the squared norm. per_class: retain samples drawn from each class. impair_epochs, repair_epochs: passes of each step.
    impair_lr, repair_lr: Adam's rate in each. batch_size: images per step.

    The first author's public code: 256 noise images, 20 copies.
    """

    __pydantic_config__ = STRICT

    noises: int = 256
    copies: int = 20
    noise_steps: int = 40
    noise_lr: float = 0.1
    lam: float = 0.1
    per_class: int = 1000
    impair_epochs: int = 1
    impair_lr: float = 0.02
    repair_epochs: int = 1
    repair_lr: float = 0.01
    batch_size: int = 256

    def __post_init__(self) -> None:
        check("noises", self.noises, 1 <= self.noises <= 4096, "between 1 and 4096")
        check("copies", self.copies, 1 <= self.copies <= 1000, "between 1 and 1000")
        check("noise_steps", self.noise_steps, 1 <= self.noise_steps <= 10_000, "between 1 and 10000")
        check("noise_lr", self.noise_lr, 0 < self.noise_lr <= 10, "above 0 and at most 10")
        check("lam", self.lam, 0 <= self.lam <= 100, "between 0 and 100")
        for name in ("per_class", "impair_epochs", "repair_epochs"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("impair_lr", "repair_lr"):
            check(name, getattr(self, name), 0 < getattr(self, name) <= 1, "above 0 and at most 1")
        check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")


def squared_length(noise: Tensor) -> Tensor:
    """Return ||N||² of each image: (B, C, H, W) -> (B,)."""
    return noise.flatten(1).square().sum(dim=1)


def error_maximising(model: nn.Module, labels: Tensor, shape: tuple[int, int, int], params: UnsirParams, seed: int) -> Tensor:
    """From N(0, 1), minimise ``-CE(f(N), label) + lam * ||N||²`` for each image (Eq 4); float32 (B, C, H, W), on the CPU."""
    start = torch.randn(len(labels), *shape, generator=generator(seed, "noise"))
    settings = NoiseParams(per_label=1, steps=params.noise_steps, lr=params.noise_lr, lam=params.lam)
    return optimise_noise(model, start, labels, -torch.ones(len(labels)), settings, squared_length)


def per_class(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Draw at most ``count`` images of each class, keeping their order."""
    order = torch.randperm(len(images), generator=generator(seed, "retain"))
    labels = images.labels.cpu()[order]
    chosen = torch.cat([order[labels == label][:count] for label in torch.unique(labels)])
    return images.subset(chosen.sort().values)


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Impair with an epoch over noise (labelled as the forget class) and retain samples, then repair with an epoch over retain samples."""
    params: UnsirParams = context.params
    kept = per_class(retain, params.per_class, context.seed)
    labels = torch.unique(forget.labels.cpu()).repeat_interleave(params.noises)
    noise = error_maximising(model, labels, forget.shape, params, context.seed).to(forget.device)
    # Stand-ins for the noise among the images: `put_noise` replaces them in the batch.
    count = len(noise) * params.copies
    blank = torch.zeros(1, *forget.shape, dtype=torch.uint8, device=forget.device).expand(count, -1, -1, -1)
    mixed = ImageSet(blank, labels.to(forget.device).repeat(params.copies), forget.mean, forget.std).joined(kept)

    def put_noise(inputs: Tensor, index: Tensor, step: int) -> Tensor:
        return torch.where((index < count)[:, None, None, None], noise[index % len(noise)], inputs)

    def step(before: nn.Module, label: str, images: ImageSet, lr: float, epochs: int, disturb: Disturb | None) -> nn.Module:
        own = context.checkpoint and context.checkpoint.with_stem(f"{context.checkpoint.stem}-{label}")
        return teach(
            before,
            images,
            lambda index, step: images.labels[index],
            F.cross_entropy,
            adam(lr),
            replace(context, checkpoint=own),
            epochs=epochs,
            disturb=disturb,
            label=label,
        )

    impaired = step(model, "impair", mixed, params.impair_lr, params.impair_epochs, put_noise)
    return step(impaired, "repair", kept, params.repair_lr, params.repair_epochs, None)


METHOD = Method(
    params=UnsirParams,
    run=unlearn,
    title="Impair with noise that maximises the forget class's error, then repair on retain samples",
    paper="Tarun et al., Fast yet effective machine unlearning, TNNLS 2023 (UNSIR)",
    cost="noise images; two epochs over a thousand retain samples a class",
    harder="raise unlearn.impair_lr or unlearn.impair_epochs",
    main={"impair_lr": Span(low=0.3, high=3, most=1), "repair_lr": Span(low=0.3, high=3, most=1)},
    needs=("retain",),
)
