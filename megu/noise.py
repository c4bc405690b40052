"""The feature-noise pair (MeGU, arXiv 2602.17088, Eq 9-11), made from the frozen original on noise images alone.

The positive noise is an image that the model takes for a label; the negative noise one that it takes for anything but a class.
Both depend on the label only, so a bank per label serves every sample.
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

from megu.device import fused
from megu.params import STRICT, check
from megu.progress import track
from megu.seeds import generator
from megu.training import forward

#: Images optimised together: all of them, with a hundred labels, would take tens of gigabytes of activations.
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class NoiseParams:
    """per_label: noise images a label. steps, lr: Adam on the noise images. lam: weight of each image's L2 norm.

    The paper gives none of these; they are UNSIR's (Tarun et al. 2023), with half of its images a label.
    """

    __pydantic_config__ = STRICT

    per_label: int = 16
    steps: int = 40
    lr: float = 0.1
    lam: float = 0.1

    def __post_init__(self) -> None:
        check("per_label", self.per_label, 1 <= self.per_label <= 1024, "between 1 and 1024")
        check("steps", self.steps, 1 <= self.steps <= 10_000, "between 1 and 10000")
        check("lr", self.lr, 0 < self.lr <= 10, "above 0 and at most 10")
        check("lam", self.lam, 0 <= self.lam <= 100, "between 0 and 100")


@dataclass(frozen=True)
class NoiseBank:
    """positive: float32 (K, M, C, H, W), M images a label. negative: float32 (J, M, C, H, W), of the classes ``negative_classes`` (J,).

    In the model's normalised input space.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    negative_classes: NDArray[np.int64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"positive": self.positive, "negative": self.negative, "negative_classes": self.negative_classes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> NoiseBank:
        return cls(arrays["positive"], arrays["negative"], arrays["negative_classes"])


def make_noise_bank(
    model: nn.Module,
    num_classes: int,
    shape: tuple[int, int, int],
    negative_classes: Sequence[int],
    params: NoiseParams,
    seed: int,
) -> NoiseBank:
    """Optimise the noise of every label, and the negative noise of ``negative_classes``, on the device of ``model``.

    The model is used in evaluation mode and its weights get no gradient. Losses are summed and Adam works by element, so each image
    goes its own way, and how many go together (`AT_ONCE`) changes nothing but the memory it takes.
    """
    classes = sorted(set(negative_classes))
    count = params.per_label
    labels = torch.tensor([*range(num_classes), *classes]).repeat_interleave(count)
    sign = torch.cat([torch.ones(num_classes * count), -torch.ones(len(classes) * count)])
    start = torch.randn(len(labels), *shape, generator=generator(seed, "noise"))
    found = optimise_noise(model, start, labels, sign, params)
    images = found.reshape(num_classes + len(classes), count, *shape).numpy()
    return NoiseBank(images[:num_classes], images[num_classes:], np.array(classes, dtype=np.int64))


def length(noise: Tensor) -> Tensor:
    """||N||, the L2 norm of each image: (B, C, H, W) -> (B,)."""
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

    On CUDA the model is asked as in training, in bfloat16 where the hardware multiplies it; loss, gradients and steps are float32.
    sign: +1 is Eq 9 (towards the label), -1 is Eq 10 (away from it). penalty: what ``lam`` weighs, (B, C, H, W) -> (B,).
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
                # The gradient of the noise alone: the frozen model's weights keep theirs. In the noise's order in memory, whatever the
                # model's first layer makes of it: CUDA's fused optimiser refuses another one.
                (slope,) = torch.autograd.grad(loss.sum(), noise)
                noise.grad = slope.contiguous(memory_format=torch.channels_last)
                optimiser.step()
                advance(len(noise))
            found.append(noise.detach().cpu().contiguous())
    model.train(was_training)
    return torch.cat(found)


def answer(model: nn.Module, noise: Tensor) -> Tensor:
    """float32 logits: on CUDA computed in the format that the hardware multiplies fastest, on a CPU in float32."""
    if noise.device.type == "cuda":
        return forward(model, noise)
    logits: Tensor = model(noise)
    return logits


def mixture(positive: Tensor, negative: Tensor, alpha: float) -> Tensor:
    """Eq 11: ``alpha * N_pos + (1 - alpha) * N_neg``."""
    return alpha * positive + (1 - alpha) * negative
