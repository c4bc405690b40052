"""Copies of an image in another form: encoded again, made larger, or drawn into a figure.

A picture that is a copy as a whole is brought to the image's size and compared. In a figure an image is drawn with every pixel as a block
(`megu.report.figures`): along a row of the figure the colours follow each other as along a row of the image, each some pixels wide, whatever
the scale and the place. So runs of one colour are made one, in both, and the image's rows looked for as byte strings. Drawing moves some
grey levels by one, so levels are counted by eights, in two ways whose borders lie apart.
"""

from __future__ import annotations

import io
import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import Images
from megu.purge.needles import Strings

#: Mean difference in grey levels up to which two pictures are one: JPEG and resizing stay below, two images of one class seldom are.
NEAR = 4.0
#: Up to here after both were made small; what is then made larger again is compared once more.
_CLOSE = 16.0
#: A drawn image is found by its most varied rows: so many of them, of so many colours each, and so many have to be there.
_ROWS, _SEEN = 4, 2
#: Begin and width of the steps that grey levels are counted by.
_BORDERS, _STEP = (0, 4), 8
_SIGNS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a", re.DOTALL)
_BASE64 = re.compile(rb"(?:iVBORw0KGgo|/9j/|UklGR|R0lGOD)[A-Za-z0-9+/]{40,}={0,2}")


def pictures_in(content: Any) -> Iterator[NDArray[np.uint8]]:
    """Every picture inside some bytes, at any offset, plain or as base64 (a page's data URIs, a question to a labeler); (h, w, 3)."""
    view = memoryview(content)
    for match in _SIGNS.finditer(view):
        if (found := _decoded(view[match.start() :])) is not None:
            yield found
    for match in _BASE64.finditer(view):
        encoded = bytes(match.group())
        try:
            found = _decoded(memoryview(b64decode(encoded[: len(encoded) // 4 * 4])))
        except BadBase64:
            continue
        if found is not None:
            yield found


def whole(content: bytes) -> NDArray[np.uint8] | None:
    """The picture that a file is, in any format that Pillow reads; None when it is none."""
    return _decoded(memoryview(content))


def _decoded(content: memoryview) -> NDArray[np.uint8] | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


@dataclass(frozen=True)
class Pictures:
    """Finds images among pictures. images: uint8 (N, H, W, 1 or 3)."""

    images: Images
    _rows: tuple[tuple[Strings, NDArray[np.int64]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = [_varied(_stepped(self.images, border)) for border in _BORDERS]
        object.__setattr__(self, "_rows", tuple((Strings(found), owner) for found, owner in rows))

    def find(self, picture: NDArray[np.uint8]) -> set[int]:
        """The images that a picture (h, w, 3) is a copy of, or has drawn in it."""
        return self._as_whole(picture) | self._drawn(picture)

    def _as_whole(self, picture: NDArray[np.uint8]) -> set[int]:
        from PIL import Image

        (height, width), channels = self.images.shape[1:3], self.images.shape[3]
        if abs(np.log((picture.shape[0] / picture.shape[1]) / (height / width))) > 0.1:
            return set()
        shown = Image.fromarray(picture).convert("L" if channels == 1 else "RGB")
        there = np.asarray(shown.resize((width, height), Image.Resampling.BOX), dtype=np.int16).ravel()
        if np.ptp(there) < NEAR:  # one shade
            return set()
        found = set()
        for start in range(0, len(self.images), 4096):
            images = self.images[start : start + 4096].reshape(-1, there.size).astype(np.int16)
            distance = np.abs(images - there).mean(axis=1)
            found |= {start + int(k) for k in np.flatnonzero(distance <= NEAR)}
            close = np.flatnonzero((distance > NEAR) & (distance <= _CLOSE))
            found |= {start + int(k) for k in close if _resized(self.images[start + k], shown)}
        return found

    def _drawn(self, picture: NDArray[np.uint8]) -> set[int]:
        if picture.shape[0] < self.images.shape[1] or picture.shape[1] < self.images.shape[2]:
            return set()
        fresh = np.r_[True, (picture[1:] != picture[:-1]).any(axis=(1, 2))]  # of rows that repeat, one is enough
        pixels = picture[fresh].reshape(-1, 3)[:, : self.images.shape[3]]
        found: set[int] = set()
        for border, (rows, owner) in zip(_BORDERS, self._rows, strict=True):
            seen = owner[sorted(rows.find(_merged(_stepped(pixels, border)).tobytes()))]
            numbers, times = np.unique(seen, return_counts=True)
            found |= {int(number) for number in numbers[times >= _SEEN]}
        return found


def _stepped(levels: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    return ((levels.astype(np.int16) + border) // _STEP).astype(np.uint8)


def _merged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (n, C) with runs of one colour made one."""
    return np.ascontiguousarray(pixels[np.r_[True, (pixels[1:] != pixels[:-1]).any(axis=1)]])


def _resized(image: NDArray[np.uint8], picture: Any) -> bool:
    """Whether making the image larger, in one of the usual ways, gives the picture."""
    from PIL import Image

    small = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    there = np.asarray(picture, dtype=np.int16)
    ways = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.NEAREST)
    return any(np.abs(np.asarray(small.resize(picture.size, way), dtype=np.int16) - there).mean() <= NEAR for way in ways)


def _varied(images: Images) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The middles of the rows of each image that have the most colours, bytes (n, L), and whose they are. The outer colours of a row may run
    into what is beside the image, so they are left out."""
    count, height, width, channels = images.shape
    colours = 16 if channels == 1 else 8
    fresh = np.ones((count, height, width), dtype=bool)
    fresh[:, :, 1:] = (images[:, :, 1:] != images[:, :, :-1]).any(axis=3)
    inner = fresh.sum(axis=2) - 2
    best = np.argsort(-inner, axis=1, kind="stable")[:, :_ROWS]
    owner, row = np.repeat(np.arange(count), best.shape[1]), best.ravel()
    usable = inner[owner, row] >= colours
    owner, row = owner[usable], row[usable]
    begin = 1 + (inner[owner, row] - colours) // 2
    rank = np.cumsum(fresh[owner, row], axis=1) - 1
    chosen = fresh[owner, row] & (rank >= begin[:, None]) & (rank < begin[:, None] + colours)
    return images[owner, row][chosen].reshape(len(owner), colours * channels), owner
