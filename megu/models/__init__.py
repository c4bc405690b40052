"""The architectures. A model takes normalised images (B, C, H, W) and returns logits (B, K); ``features`` gives the penultimate (B, F).

Adding one is: write its file, add its entry to `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from megu.models.compact import compact_resnet
from megu.seeds import derive


class Classifier(Protocol):
    """What every model here offers beside ``nn.Module``'s own."""

    def features(self, images: Tensor) -> Tensor: ...

    def classify(self, features: Tensor) -> Tensor: ...


#: name -> (num_classes, channels) -> model
MODELS: dict[str, Callable[[int, int], nn.Module]] = {"resnet-compact": compact_resnet}


def build(arch: str, num_classes: int, channels: int, seed: int) -> nn.Module:
    """A freshly initialised model, the same for the same seed whatever was drawn before.

    Raises ``KeyError`` for an architecture that `MODELS` does not have.
    """
    return seeded(lambda: MODELS[arch](num_classes, channels), seed)


def seeded(fresh: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What ``fresh`` makes when all that it draws is decided by ``seed``; the generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        model = fresh()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
