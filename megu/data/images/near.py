"""A perceptual hash: the signs of an image's lowest frequencies, which a change of size or quality hardly affects.

An image becomes 16 x 16 grey means; of their discrete cosine transform the signs of the 96 lowest frequencies are kept, without the mean.
A blur or a resize weakens a frequency and keeps its sign. Two images are compared with the strengths of one of them: a sign that differs
where the frequency is strong counts more than one that was nearly zero. ``benchmarks/suppression.py`` measures how often that is right.
Where both images are available, as within a data set, the frequencies themselves are compared (`alike`);
``benchmarks/near_duplicates.py`` measures that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: Bits of a hash, and its bytes.
BITS, SIZE = 96, 12
#: The largest share of an image's strength whose signs may differ in a suspected copy.
NEAR = 0.016
#: Largest distance between two images' frequencies, each scaled to length 1, at which they are the same image in different quality.
ALIKE = 0.06
#: How many signs may differ at most, whatever their strength: the range of the index search.
_FAR = 14
_SIDE = 16
#: Mean strength of a frequency, in grey levels, below which an image counts as one shade: its signs are random.
_FLAT = 1.0
_BAND = 24
#: How many of a band's weakest signs are also looked up inverted.
_TRIED = 5
#: (5, 32): which of them are inverted, for each try.
_CHOICES = np.arange(1 << _TRIED) >> np.arange(_TRIED)[:, None] & 1
#: Weights of red, green and blue in grey: the luma, which JPEG preserves best.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
#: How many pairs and images are in memory at once, and how many pairs with their frequencies.
_PAIRS, _IMAGES, _COMPARED = 1 << 21, 4096, 1 << 16
#: How many entries may share a band with an image: a larger number tells nothing about any of them, and would take minutes.
_CROWD = 4096

Hashes = NDArray[np.uint8]


@dataclass(frozen=True)
class Strengths:
    """The frequencies of images: float32 (N, 96) in grey levels. usable: bool (N,), False for images of one shade."""

    values: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.bool_]:
        return np.asarray(np.abs(self.values).mean(axis=1) >= _FLAT)

    @property
    def hashes(self) -> Hashes:
        """uint8 (N, 12): the signs, one bit each."""
        return np.packbits(self.values >= 0, axis=1)


def strengths(images: NDArray[np.uint8]) -> Strengths:
    """Return the strengths of images (N, H, W, C) of any size, grey or colour."""
    down, across, basis = _means(images.shape[1]), _means(images.shape[2]), _cosines()
    found = np.empty((len(images), BITS), dtype=np.float32)
    for start in range(0, len(images), _IMAGES):
        part = images[start : start + _IMAGES]
        grey = part[..., 0].astype(np.float32) if part.shape[3] == 1 else part.astype(np.float32) @ _LUMA
        frequencies = basis @ (down @ grey @ across.T) @ basis.T
        found[start : start + _IMAGES] = frequencies.reshape(len(part), -1)[:, _lowest()]
    return Strengths(found)


@cache
def _means(side: int) -> NDArray[np.float32]:
    """(16, side): the weights of `side` pixels in 16 means over equal lengths."""
    edges = np.arange(_SIDE + 1) * side / _SIDE
    pixel = np.arange(side)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(covered, 0) * _SIDE / side, dtype=np.float32)


@cache
def _cosines() -> NDArray[np.float32]:
    """(16, 16): the orthonormal discrete cosine transform (II)."""
    frequency, place = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None] + 0.5
    basis = np.cos(np.pi * frequency * place / _SIDE) * np.sqrt(2 / _SIDE)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, dtype=np.float32)


@cache
def _lowest() -> NDArray[np.int64]:
    """(96,): the positions of the lowest frequencies but the mean, lowest first."""
    number = np.arange(_SIDE)
    return np.argsort((number[:, None] ** 2 + number[None] ** 2).ravel(), kind="stable")[1 : BITS + 1]


Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class NearIndex:
    """Find which of many hashes an image is near to. hashes: uint8 (M, 12).

    The 96 signs are divided into four bands of 24. An image is compared only with hashes that share a band with it, where the image's five
    weakest signs in the band may be inverted: signs that differ in a copy are weak ones.
    """

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = np.ascontiguousarray(hashes)
        signs = np.unpackbits(self.hashes, axis=1).astype(bool)
        self._bands = [_Band(_number(signs[:, columns])) for columns in _dealt()]

    def find(self, images: Strengths) -> NDArray[np.int64]:
        """Return, for each image, the number of the nearest hash, -1 where none is near: int64 (N,)."""
        found = np.full(len(images.values), -1, dtype=np.int64)
        best = np.full(len(images.values), NEAR, dtype=np.float32)
        usable = np.flatnonzero(images.usable) if len(self.hashes) else np.empty(0, dtype=np.int64)
        for start in range(0, len(usable), _IMAGES):
            at = usable[start : start + _IMAGES]
            part = Strengths(images.values[at])
            hashes, total = part.hashes, np.abs(part.values).sum(axis=1)
            for images_at, hashes_at in self.candidates(part.values):
                few = _differing(hashes[images_at], self.hashes[hashes_at]) <= _FAR
                rows, entries = images_at[few], hashes_at[few]
                other = np.unpackbits(hashes[rows] ^ self.hashes[entries], axis=1)
                apart = (np.abs(part.values[rows]) * other).sum(axis=1) / total[rows]
                for k in np.flatnonzero(apart <= best[at[rows]]):
                    row = at[rows[k]]
                    if found[row] < 0 or apart[k] < best[row]:
                        best[row], found[row] = apart[k], entries[k]
        return found

    def candidates(self, values: NDArray[np.float32]) -> Iterator[Pairs]:
        """Yield the images and hashes, by number, that share a band; a bounded number of pairs at a time."""
        for band, columns in zip(self._bands, _dealt(), strict=True):
            own, weakest = _number(values[:, columns] >= 0), np.argsort(np.abs(values[:, columns]), axis=1)[:, :_TRIED]
            flips = (np.int32(1) << (_BAND - 1 - weakest)) @ _CHOICES  # distinct bits, so their sum is their union
            yield from band.find(own[:, None] ^ flips.astype(np.int32))


def alike(images: Strengths) -> NDArray[np.int64]:
    """Return the pairs of images that differ only in size and quality, as numbers, int64 (P, 2), each pair once."""
    rows = np.flatnonzero(images.usable)
    values = images.values[rows]
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-6))
    index, found = NearIndex(Strengths(values).hashes), [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(rows), _IMAGES):
        for at, other in index.candidates(values[start : start + _IMAGES]):
            own = at + start
            few = (own != other) & (_differing(index.hashes[own], index.hashes[other]) <= _FAR)
            pairs = np.stack([own[few], other[few]], axis=1)
            for low in range(0, len(pairs), _COMPARED):
                part = pairs[low : low + _COMPARED]
                apart = np.linalg.norm(unit[part[:, 0]] - unit[part[:, 1]], axis=1)
                found.append(np.sort(part[apart <= ALIKE], axis=1))
    return np.unique(rows[np.concatenate(found)], axis=0)


class _Band:
    """An index of the hashes by one band of their signs. numbers: int32 (M,), the band of each as a number."""

    def __init__(self, numbers: NDArray[np.int32]) -> None:
        self._order = np.argsort(numbers, kind="stable").astype(np.int32)
        self._sorted = numbers[self._order]
        self._there = np.zeros(1 << _BAND, dtype=bool)
        self._there[numbers] = True

    def find(self, tried: NDArray[np.int32]) -> Iterator[Pairs]:
        """tried: int32 (n, tries), the bands to look up for each image."""
        images, tries = np.nonzero(self._there[tried])
        wanted = tried[images, tries]
        first = np.searchsorted(self._sorted, wanted, side="left")
        count = np.searchsorted(self._sorted, wanted, side="right") - first
        count[count > _CROWD] = 0
        ends = np.cumsum(count)
        for low, high in _runs(ends):
            part = count[low:high]
            begin = ends[low:high] - part - (ends[low] - count[low])  # of each among the pairs of this run
            place = np.arange(int(part.sum())) + np.repeat(first[low:high] - begin, part)
            yield np.repeat(images[low:high], part), self._order[place]


def _differing(one: Hashes, other: Hashes) -> NDArray[np.uint8]:
    """Return how many signs differ in each pair (n, 12)."""
    words = (one ^ other).view(np.uint32)
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.uint8))


def _dealt() -> list[slice]:
    """Return the columns of each band: every band has some of the lowest frequencies and some of the highest."""
    return [slice(first, None, BITS // _BAND) for first in range(BITS // _BAND)]


def _number(signs: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Encode signs (n, 24) as one number each."""
    return np.packbits(signs, axis=1).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)


def _runs(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of images with at most `_PAIRS` pairs each. ends: the number of pairs up to and including each image."""
    low = 0
    while low < len(ends):
        before = int(ends[low - 1]) if low else 0
        high = max(int(np.searchsorted(ends, before + _PAIRS, side="right")), low + 1)
        yield low, high
        low = high
