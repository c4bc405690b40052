"""The forgotten images in another size: `megu data add --size` packs the same files again.

A match is certain when an image, brought to the size of another as `megu data add` does it, equals the other byte for byte. Where neither is
the other's source, both may still come from one photograph that is not here: they are compared in two small forms, and those that differ by
less than two images of one class usually do are suspected. `benchmarks/resized.py` measures how often that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import Images, image_ids
from megu.data.images.decoding import brought_to
from megu.data.writing import chunks

#: An image with fewer bytes, or fewer differing neighbours, may equal another by chance.
_BYTES, _CHANGES = 64, 24
#: Side of the coarse form, and the largest one of the fine form, in pixels.
_COARSE, _FINE = 8, 64
#: Mean difference, in units of the mean difference of neighbouring pixels, up to which two images are suspected to be the same.
_COARSE_NEAR, _FINE_NEAR = 0.10, 0.16
#: Images further apart than this in the coarse form (root mean square, same unit) are not compared in the fine one.
_FAR = 0.5
#: Logarithm of the ratio of two proportions up to which they count as equal.
_PROPORTION = 0.02


@dataclass(frozen=True)
class Matches:
    """certain: for each row the number of the image of which it is another size, -1 for none; int64 (n,). suspected: bool (n,)."""

    certain: NDArray[np.int64]
    suspected: NDArray[np.bool_]


@dataclass(frozen=True)
class Resized:
    """Finds images in arrays of images of another size or number of channels. images: uint8 (N, H, W, C)."""

    images: Images
    _packed: dict[tuple[int, ...], dict[bytes, int]] = field(default_factory=dict, repr=False)
    _forms: dict[tuple[int, int, int], NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def find(self, rows: Images) -> Matches:
        """Match rows, uint8 (n, h, w, c). Rows of the images' own shape are skipped: those are searched for byte by byte."""
        certain = self.certain(rows)
        suspected = np.concatenate([np.zeros(0, dtype=bool), *map(self._suspected, self._of_another_form(rows))])
        return Matches(certain, (certain < 0) & np.pad(suspected, (0, len(rows) - len(suspected))))

    def certain(self, rows: Images) -> NDArray[np.int64]:
        """See `Matches`."""
        found = np.concatenate([np.zeros(0, dtype=np.int64), *map(self._certain, self._of_another_form(rows))])
        return np.pad(found, (0, len(rows) - len(found)), constant_values=-1)

    def _of_another_form(self, rows: Images) -> Iterator[Images]:
        return iter(()) if rows.shape[1:] == self.images.shape[1:] or not len(self.images) else chunks(rows)

    def _certain(self, rows: Images) -> NDArray[np.int64]:
        channels = max(rows.shape[3], self.images.shape[3])
        forward, own = self._known(rows.shape[1:3], channels), self._known(self.images.shape[1:3], channels)
        found = [forward.get(digest, -1) for digest in image_ids(_widened(rows, channels)).tolist()]
        smaller = image_ids(_widened(packed(rows, self.images.shape[1:3]), channels)).tolist()
        return np.array([one if one >= 0 else own.get(digest, -1) for one, digest in zip(found, smaller, strict=True)])

    def _known(self, size: tuple[int, ...], channels: int) -> dict[bytes, int]:
        """Return the images brought to a size, by digest; without those that may equal another by chance."""
        if (*size, channels) not in self._packed:
            known: dict[bytes, int] = {}
            start = 0
            for part in chunks(self.images):
                images = packed(part, size)
                usable = np.minimum(_telling(images), _telling(part)) >= _CHANGES
                digests = image_ids(_widened(images, channels))
                known |= {digests[k]: start + int(k) for k in np.flatnonzero(usable)} if images[0].size >= _BYTES else {}
                start += len(part)
            self._packed[(*size, channels)] = known
        return self._packed[(*size, channels)]

    def _suspected(self, rows: Images) -> NDArray[np.bool_]:
        found = np.zeros(len(rows), dtype=bool)
        (height, width), (other_height, other_width) = self.images.shape[1:3], rows.shape[1:3]
        if abs(np.log((height / width) / (other_height / other_width))) > _PROPORTION:
            return found
        least = (min(height, other_height, _FINE), min(width, other_width, _FINE))
        coarse = (min(least[0], _COARSE), min(least[1], _COARSE))
        channels = max(rows.shape[3], self.images.shape[3])
        if coarse[0] * coarse[1] * channels < _BYTES:
            return found
        here, there = self._form(coarse, channels), _form(rows, coarse, channels)
        rough = _roughness(here, coarse, channels)
        square = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1)[None] - 2 * here @ there.T
        apart = np.sqrt(np.maximum(square, 0) / here.shape[1]) / rough[:, None]
        numbers, at = np.nonzero((apart <= _FAR) & (rough > 1)[:, None])
        if not len(at):
            return found
        unit = rough[numbers]
        near = np.abs(here[numbers] - there[at]).mean(axis=1) <= _COARSE_NEAR * unit
        near &= min(least) > _COARSE  # for images that are no larger, the fine form is the same
        fine, fine_rows = self._form(least, channels), _form(rows[np.unique(at)], least, channels)
        place = np.searchsorted(np.unique(at), at)
        unit = _roughness(fine, least, channels)[numbers]
        near |= np.abs(fine[numbers] - fine_rows[place]).mean(axis=1) <= _FINE_NEAR * unit
        found[at[near]] = True
        return found

    def _form(self, size: tuple[int, int], channels: int) -> NDArray[np.float32]:
        if (*size, channels) not in self._forms:
            self._forms[(*size, channels)] = _form(self.images, size, channels)
        return self._forms[(*size, channels)]


def packed(images: Images, size: tuple[int, ...]) -> Images:
    """Return images (n, h, w, c) as `megu data add --size` brings them to a size (height, width)."""
    return np.stack([np.asarray(picture) for picture in _pictures(images, size)]).reshape(len(images), *size, images.shape[3])


def _pictures(images: Images, size: tuple[int, ...]) -> Iterator[Any]:
    from PIL import Image

    for image in images:
        yield brought_to(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), (size[0], size[1]))


def _form(images: Images, size: tuple[int, int], channels: int) -> NDArray[np.float32]:
    forms = [_widened(packed(part, size), channels).reshape(len(part), -1).astype(np.float32) for part in chunks(images)]
    return np.concatenate(forms)


def _widened(images: Images, channels: int) -> Images:
    return images if images.shape[3] == channels else np.repeat(images, channels, axis=3)


def _telling(images: Images) -> NDArray[np.int64]:
    """Return how many neighbours differ in each image."""
    flat = images.reshape(len(images), -1)
    return np.asarray((flat[:, 1:] != flat[:, :-1]).sum(axis=1))


def _roughness(forms: NDArray[np.float32], size: tuple[int, int], channels: int) -> NDArray[np.float32]:
    """Return the mean difference of neighbouring pixels of each image; (n,), at least 1 grey level."""
    images = forms.reshape(len(forms), *size, channels)
    across, down = (np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2, 3)) for axis in (2, 1))
    rough: NDArray[np.float32] = np.maximum((across + down) / 2, np.float32(1))
    return rough


__all__ = ["Matches", "Resized", "packed"]
