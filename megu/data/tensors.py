"""Images on a device, ready for training: kept as bytes, normalised a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from megu.data.arrays import Partition

#: Black pixels on each side of an image that is cropped at random.
CROP_PADDING = 4


@dataclass(frozen=True)
class ImageSet:
    """Labelled images on one device.

    Attributes
    ----------
    images: uint8 (N, C, H, W), channels last in memory.
    labels: int64 (N,).
    mean, std: float32 (C,), of pixels scaled to [0, 1].
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @classmethod
    def from_partition(
        cls, partition: Partition, mean: Sequence[float], std: Sequence[float], device: torch.device, index: Any = None
    ) -> ImageSet:
        """Copy a partition (memory-mapped N x H x W x C) to a device, all of it or the positions ``index``."""
        chosen = slice(None) if index is None else np.asarray(index)
        images = torch.from_numpy(np.array(partition.images[chosen])).permute(0, 3, 1, 2)
        return cls(
            images.to(device),
            torch.from_numpy(np.array(partition.labels[chosen])).to(device),
            torch.tensor(mean, device=device, dtype=torch.float32),
            torch.tensor(std, device=device, dtype=torch.float32),
        )

    def subset(self, index: Any) -> ImageSet:
        """The images at positions ``index``, in that order (a copy)."""
        positions = torch.as_tensor(np.asarray(index), device=self.device)
        return replace(self, images=self.images[positions], labels=self.labels[positions])

    def batch(self, index: Tensor | slice, flip: Tensor | None = None, crop: Tensor | None = None) -> Tensor:
        """float32 (B, C, H, W), normalised; ``flip`` (bool (B,)) mirrors some left to right, ``crop`` is as in `cropped`."""
        images = self.images[index]
        if crop is not None:
            images = cropped(images, crop)
        if flip is not None:
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        return self.normalise(images)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to the float32 input that the models take."""
        scale, shift = 1.0 / (255.0 * self.std), self.mean / self.std
        ready = images.float() * scale[:, None, None] - shift[:, None, None]
        return ready.contiguous(memory_format=torch.channels_last)


def cropped(images: Tensor, crop: Tensor) -> Tensor:
    """Each image of (B, C, H, W) padded by `CROP_PADDING` zeros and cut to its size again, from row and column ``crop`` (B, 2) on.

    ``crop`` is in 0..2 * CROP_PADDING; CROP_PADDING in both leaves the image as it is.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (CROP_PADDING,) * 4).permute(0, 2, 3, 1)
    rows = crop[:, 0, None] + torch.arange(height, device=crop.device)
    columns = crop[:, 1, None] + torch.arange(width, device=crop.device)
    each = torch.arange(len(images), device=crop.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
