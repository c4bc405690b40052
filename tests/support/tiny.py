"""Tiny synthetic data and models that tests of the method share."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megu.data.tensors import ImageSet


def images(n: int = 96, classes: int = 4, size: int = 8, channels: int = 1, seed: int = 0) -> ImageSet:
    """Separable images: class k is a bright square in its own corner, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    pixels = torch.randint(0, 90, (n, channels, size, size), generator=generator)
    half = size // 2
    for number, label in enumerate(labels.tolist()):
        row, column = divmod(label % 4, 2)
        pixels[number, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 120 + 15 * (label // 4)
    return ImageSet(pixels.to(torch.uint8), labels, torch.full((channels,), 0.3), torch.full((channels,), 0.25))


class Crossings(TorchDispatchMode):
    """Counts the operations that take a tensor of the CPU to the meta device, which stands for a GPU: it has no values to ask for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        there = any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_leaves(found))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.count += there and any(leaf.device.type == "cpu" and leaf.dim() > 0 for leaf in given)
        return found
