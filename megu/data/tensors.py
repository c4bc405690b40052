"""Images on a device, ready for training: stored as bytes, normalised one batch at a time.

A set that would take more than a share of the memory stays on disk: its batches are gathered from the memory map, bit for bit the same.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from megu.core.device import CPU, sent

if TYPE_CHECKING:
    from megu.data.arrays import Partition

#: Width in pixels of the black border that random cropping adds on each side of an image.
CROP_PADDING = 4


#: The largest share of the free memory of the device that the images of one set may take; a larger set stays on disk.
MEMORY_SHARE = 0.4


@dataclass(frozen=True)
class ImageSet:
    """Labelled images on one device.

    Attributes
    ----------
    pixels: uint8 (N, C, H, W), channels last in memory, on the device; or, with ``rows``, (M, C, H, W) on disk by memory map.
    labels: int64 (N,), on the device.
    mean, std: float32 (C,), of pixels scaled to [0, 1].
    rows: int64 (N,), on the CPU: which of ``pixels`` these images are; None for all in their order.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.pixels if self.rows is None else self.rows)
        if count != len(self.labels):
            raise ValueError(f"{count} images have {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W) on the device. For a set on disk this reads everything: select a few images with `subset` first."""
        return self.pixels if self.rows is None else self.raw(slice(None))

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def home(self) -> torch.device:
        """The device on which image positions are best passed: that of the images, so that neither side waits for the other."""
        return self.device if self.rows is None else CPU

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @classmethod
    def from_partition(
        cls,
        partition: Partition,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        index: Any = None,
        limit: int | None = None,
    ) -> ImageSet:
        """Put a partition (memory-mapped N x H x W x C) on a device, all of it or the positions ``index``.

        limit: images of more bytes than this stay on disk; None for `MEMORY_SHARE` of the free memory.
        """
        chosen = np.arange(len(partition)) if index is None else np.asarray(index)
        labels = torch.from_numpy(np.array(partition.labels[chosen])).to(device)
        moments = [torch.tensor(values, device=device, dtype=torch.float32) for values in (mean, std)]
        most = MEMORY_SHARE * free_memory(device) if limit is None else limit
        if len(chosen) * int(np.prod(partition.images.shape[1:])) > most:
            return cls(mapped(partition.images), labels, moments[0], moments[1], torch.from_numpy(chosen.astype(np.int64)))
        images = torch.from_numpy(np.array(partition.images if index is None else partition.images[chosen]))
        return cls(images.permute(0, 3, 1, 2).to(device), labels, *moments)

    def subset(self, index: Any) -> ImageSet:
        """Return the images at positions ``index``, in that order, as a copy; for a set on disk only the positions are copied."""
        positions = torch.as_tensor(np.asarray(index), device=self.device)
        if self.rows is not None:
            return replace(self, labels=self.labels[positions], rows=self.rows[positions.cpu()])
        return replace(self, pixels=self.pixels[positions], labels=self.labels[positions])

    def joined(self, other: ImageSet) -> ImageSet:
        """Return these images followed by those of ``other``, as a copy; two parts of one set on disk stay on disk."""
        labels = torch.cat([self.labels, other.labels])
        if self.rows is not None and other.rows is not None and self.pixels.data_ptr() == other.pixels.data_ptr():
            return replace(self, labels=labels, rows=torch.cat([self.rows, other.rows]))
        return replace(self, pixels=torch.cat([self.images, other.images]), labels=labels, rows=None)

    def raw(self, index: Tensor | slice) -> Tensor:
        """Return images as stored, uint8 (B, C, H, W) on the device."""
        if self.rows is None:
            return self.pixels[index]
        rows = self.rows[index if isinstance(index, slice) else index.cpu()]
        return sent(self.pixels[rows], self.device)

    def batch(self, index: Tensor | slice, flip: Tensor | None = None, crop: Tensor | None = None) -> Tensor:
        """Return float32 (B, C, H, W), normalised; ``flip`` (bool (B,)) mirrors images left to right, ``crop`` is as in `cropped`."""
        images = self.raw(index)
        if crop is not None:
            images = cropped(images, crop)
        if flip is not None:
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        return self.normalise(images)

    def normalise(self, images: Tensor) -> Tensor:
        """Convert uint8 (B, C, H, W) to the float32 input that the models take."""
        scale, shift = 1.0 / (255.0 * self.std), self.mean / self.std
        ready = images.float() * scale[:, None, None] - shift[:, None, None]
        return ready.contiguous(memory_format=torch.channels_last)


def mapped(images: NDArray[np.uint8]) -> Tensor:
    """Return a memory map (N, H, W, C) as a tensor (N, C, H, W) that reads from disk where it is indexed; nothing may write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; for main memory what the system reports as available, or what the control group has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        free = next(
            int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line
        )
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        group = Path("/sys/fs/cgroup")
        allowed, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, max(allowed - used, 0))
    except (OSError, ValueError):  # no control group, or one without a limit
        return free


def cropped(images: Tensor, crop: Tensor) -> Tensor:
    """Pad each image of (B, C, H, W) with `CROP_PADDING` zeros and cut it back to its size, starting at row and column ``crop`` (B, 2).

    ``crop`` is in 0..2 * CROP_PADDING; CROP_PADDING in both leaves the image unchanged.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (CROP_PADDING,) * 4).permute(0, 2, 3, 1)
    rows = crop[:, 0, None] + torch.arange(height, device=crop.device)
    columns = crop[:, 1, None] + torch.arange(width, device=crop.device)
    each = torch.arange(len(images), device=crop.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
