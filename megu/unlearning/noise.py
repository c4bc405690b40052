"""The feature-noise pair (MeGU, arXiv 2602.17088, Eq 9-11), made with the frozen original from noise images alone.

The positive noise is an image that the model takes for a label; the negative noise is one that it takes for anything but a class.
Both depend only on the label, so one bank per label serves every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from megu.core.device import fused
from megu.core.params import STRICT, check
from megu.core.progress import track
from megu.core.seeds import generator
from megu.training.loop import answer, passed

#: How many images are optimised at once: all of them, with a hundred labels, would take tens of gigabytes of activations.
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class NoiseParams:
    """per_label: noise images per label.
    steps: Adam steps on each noise image.
    lr: Adam's learning rate.
    lam: weight of each image's L2 norm.
    coverage: positive noise is made for the most frequent target labels, as many as make up this share of all targets.

    The paper states none of these. Rate and weight are UNSIR's (Tarun et al. 2023); its 32 images per label and 40 steps cost more than a
    short re-optimisation.
    """

    __pydantic_config__ = STRICT

    per_label: int = 2
    steps: int = 20
    lr: float = 0.1
    lam: float = 0.1
    coverage: float = 0.95

    def __post_init__(self) -> None:
        check("per_label", self.per_label, 1 <= self.per_label <= 1024, "between 1 and 1024")
        check("steps", self.steps, 1 <= self.steps <= 10_000, "between 1 and 10000")
        check("lr", self.lr, 0 < self.lr <= 10, "above 0 and at most 10")
        check("lam", self.lam, 0 <= self.lam <= 100, "between 0 and 100")
        check("coverage", self.coverage, 0 < self.coverage <= 1, "above 0 and at most 1")


@dataclass(frozen=True)
class NoiseBank:
    """positive: float32 (L, M, C, H, W), M images for each of the labels ``positive_classes`` (L,). negative: float32 (J, M, C, H, W), for
    the classes ``negative_classes`` (J,). Both in the model's normalised input space.
    """

    positive: NDArray[np.float32]
    positive_classes: NDArray[np.int64]
    negative: NDArray[np.float32]
    negative_classes: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> NoiseBank:
        return cls(**arrays)


def taught(targets: NDArray[Any], coverage: float) -> list[int]:
    """Return the labels with the largest shares of ``targets`` (N, K), as few as make up ``coverage`` of them; ascending."""
    shares = np.asarray(targets, dtype=np.float64).mean(axis=0)
    largest = np.argsort(-shares, kind="stable")
    before = np.cumsum(shares[largest]) - shares[largest]
    return sorted(largest[(before < coverage * shares.sum() - 1e-9) & (shares[largest] > 0)].tolist())


def make_noise_bank(
    model: nn.Module,
    labels: Sequence[int],
    shape: tuple[int, int, int],
    negative_classes: Sequence[int],
    params: NoiseParams,
    seed: int,
) -> NoiseBank:
    """Optimise the positive noise of ``labels`` and the negative noise of ``negative_classes``, on the device of ``model``.

    The model is used in evaluation mode and its weights get no gradient. Losses are summed and Adam works element by element, so each
    image is optimised independently, and how many are optimised at once (`AT_ONCE`) changes only the memory used.
    """
    positive, negative = sorted(set(labels)), sorted(set(negative_classes))
    count = params.per_label
    every = torch.tensor([*positive, *negative]).repeat_interleave(count)
    sign = torch.cat([torch.ones(len(positive) * count), -torch.ones(len(negative) * count)])
    start = torch.randn(len(every), *shape, generator=generator(seed, "noise"))
    found = optimise_noise(model, start, every, sign, params)
    images = found.reshape(len(positive) + len(negative), count, *shape).numpy()
    of_positive, of_negative = np.array(positive, dtype=np.int64), np.array(negative, dtype=np.int64)
    return NoiseBank(images[: len(positive)], of_positive, images[len(positive) :], of_negative)


def length(noise: Tensor) -> Tensor:
    """Return ||N||, the L2 norm of each image: (B, C, H, W) -> (B,)."""
    found: Tensor = noise.flatten(1).norm(dim=1)
    return found


def optimise_noise(
    model: nn.Module,
    start: Tensor,
    labels: Tensor,
    sign: Tensor,
    params: NoiseParams,
    penalty: Callable[[Tensor], Tensor] = length,
) -> Tensor:
    """Minimise ``sign * CE(f(N), label) + lam * ||N||`` for each image N; float32 (B, C, H, W) in, the same out on the CPU.

    On CUDA the model runs as in training, in bfloat16 where the hardware supports it; loss, gradients and steps are float32.
    sign: +1 is Eq 9 (towards the label), -1 is Eq 10 (away from it). penalty: the term that ``lam`` weights, (B, C, H, W) -> (B,).
    """
    device, was_training, found = next(model.parameters()).device, model.training, []
    model.eval()
    with track("noise", params.steps * len(start), "images") as advance:
        for first in range(0, len(start), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            chosen, signs = labels[part].to(device), sign[part].to(device)
            noise = start[part].detach().to(device).clone(memory_format=torch.channels_last).requires_grad_(True)
            optimiser = torch.optim.Adam([noise], lr=params.lr, fused=fused(model))
            for _ in range(params.steps):
                loss = signs * F.cross_entropy(answer(model, noise), chosen, reduction="none") + params.lam * penalty(noise)
                # The gradient of the noise alone: the frozen model's weights keep theirs. In the noise's memory layout, whatever the
                # model's first layer returns: CUDA's fused optimiser refuses a different one.
                (slope,) = torch.autograd.grad(loss.sum(), noise)
                noise.grad = slope.contiguous(memory_format=torch.channels_last)
                optimiser.step()
                passed(len(noise))
                advance(len(noise))
            found.append(noise.detach().cpu().contiguous())
    model.train(was_training)
    return torch.cat(found)


def mixture(positive: Tensor, negative: Tensor, alpha: float) -> Tensor:
    """Return ``alpha * N_pos + (1 - alpha) * N_neg`` (Eq 11)."""
    return alpha * positive + (1 - alpha) * negative
