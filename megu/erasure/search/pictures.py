"""Copies of an image in another form: encoded again, made larger, or drawn into a figure.

To find a whole picture that is a copy, it is brought to the image's size and compared. In a figure an image is drawn with every pixel as a
block (`megu.report.figures`): along a row of the figure the colours follow each other as along a row of the image, each some pixels wide,
whatever the scale and the place. So runs of one colour are merged in both, and the image's rows are searched for as byte strings. Drawing
shifts some grey levels by one, so levels are grouped in steps of eight, in two ways whose borders lie apart.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import Images
from megu.data.images.decoding import as_added, brought_to
from megu.data.images.layout import IMAGES
from megu.erasure.search.patterns import Strings
from megu.erasure.search.unpack import Reader, describe

#: Mean difference in grey levels up to which two pictures count as the same. JPEG and resizing stay below it; of 12 million pairs of
#: different Fashion-MNIST images none does: the nearest differ by 5.1.
NEAR = 4.0
#: Up to this difference after both were made small, the image is enlarged again and compared once more.
_CLOSE = 16.0
#: A drawn image is found by its most varied rows: how many of them are searched for, and how many must be there.
_ROWS, _SEEN = 4, 2
#: Offsets and width of the steps that grey levels are grouped in.
_BORDERS, _STEP = (0, 4), 8
_SIGNS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a", re.DOTALL)
#: How pictures begin whose signatures are too short to be searched for anywhere.
_OTHERS = re.compile(rb"BM....\0\0\0\0|II\*\0|MM\0\*|P[1-6][\s#]", re.DOTALL)
#: Files that are pictures by their name, including kinds that cannot be decoded here.
SUFFIXES = IMAGES | {".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm"}
#: The kinds that are tried: none that needs another program to decode it.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
#: Most pixels of a picture that is decoded, and of all frames of an animation; bounds memory and time.
_PIXELS, _FRAMES = 1 << 26, 1 << 30
_ORIENTATION = 0x0112
_BASE64 = re.compile(rb"(?:iVBORw0KGgo|/9j/|UklGR|R0lGOD)[A-Za-z0-9+/]{40,}={0,2}")


@dataclass(frozen=True)
class Undecoded:
    """A picture that cannot be decoded and may show anything. why: in a few words."""

    why: str


def pictures_in(content: memoryview, suffix: str = "") -> Iterator[NDArray[np.uint8] | Undecoded]:
    """Yield every picture inside some bytes, (h, w, 3): at any offset, plain or as base64 (a page's data URIs, a question to a labeler), and
    every frame of an animation. suffix: of the file's name, ".png".

    What is a picture by its name, its beginning or as base64 but cannot be decoded is reported. Further inside, the two or three bytes that
    a picture begins with may be there by chance.
    """
    begins = False
    for match in _SIGNS.finditer(content):
        begins = begins or not match.start()
        for found in _decoded(content[match.start() :]):
            if isinstance(found, np.ndarray) or not match.start():
                yield found
    if not begins and len(content) and (suffix in SUFFIXES or _OTHERS.match(content)):
        for found in _decoded(content):
            if isinstance(found, np.ndarray) or suffix in SUFFIXES:
                yield found
    for match in _BASE64.finditer(content):
        encoded = bytes(match.group())
        try:
            decoded = b64decode(encoded[: len(encoded) // 4 * 4])
        except BadBase64 as error:
            yield Undecoded(describe(error))
        else:
            yield from _decoded(memoryview(decoded))


def _decoded(content: memoryview) -> Iterator[NDArray[np.uint8] | Undecoded]:
    """Yield the frames of a picture, as stored and as shown, and the first as a data set has it; one in memory at a time."""
    from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

    Image.init()
    formats, left = [name for name in _FORMATS if name in Image.OPEN], _FRAMES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BufferedReader(Reader(content)), formats=formats) as picture:
                for number, frame in enumerate(ImageSequence.Iterator(picture)):
                    size = frame.size[0] * frame.size[1]
                    left -= size
                    if size > _PIXELS or left < 0:
                        raise ValueError("it has more pixels than are looked at")
                    if not number and (added := as_added(frame)) is not None:
                        yield added if added.shape[2] == 3 else np.repeat(added, 3, axis=2)
                    yield np.asarray(frame.convert("RGB"))
                    if frame.getexif().get(_ORIENTATION, 1) != 1:
                        yield np.asarray(ImageOps.exif_transpose(frame).convert("RGB"))
    except UnidentifiedImageError:
        yield Undecoded("no picture that can be decoded")
    except (Image.DecompressionBombError, *_BAD) as error:  # type: ignore[misc]
        yield Undecoded(describe(error))


#: What Pillow raises for broken pictures.
_BAD: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
)
_BAD += (OverflowError, MemoryError, struct.error, zlib.error)


@dataclass(frozen=True)
class Pictures:
    """Finds images among pictures. images: uint8 (N, H, W, 1 or 3)."""

    images: Images
    _rows: tuple[tuple[Strings, NDArray[np.int64]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = [_varied(_stepped(self.images, border)) for border in _BORDERS]
        object.__setattr__(self, "_rows", tuple((Strings(found), owner) for found, owner in rows))

    def find(self, picture: NDArray[np.uint8]) -> set[int]:
        """Return the images that a picture (h, w, 3) is a copy of, or that are drawn in it."""
        return self._as_whole(picture) | self._drawn(picture)

    def _as_whole(self, picture: NDArray[np.uint8]) -> set[int]:
        """Compare the middle of the picture, as a data set has it, and the whole picture if it has the shape of the images."""
        from PIL import Image

        (height, width), channels = self.images.shape[1:3], self.images.shape[3]
        shown = Image.fromarray(picture).convert("L" if channels == 1 else "RGB")
        forms = [brought_to(shown, (height, width))]
        if abs(np.log((picture.shape[0] / picture.shape[1]) / (height / width))) <= 0.1:
            forms.append(shown.resize((width, height), Image.Resampling.BOX))
        return set[int]().union(*(self._like(np.asarray(form, dtype=np.int16).ravel(), shown) for form in forms))

    def _like(self, there: NDArray[np.int16], shown: Any) -> set[int]:
        """Return the images that are close to a picture that was brought to their size. shown: the picture before that."""
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
        fresh = np.r_[True, (picture[1:] != picture[:-1]).any(axis=(1, 2))]  # one of several equal rows is enough
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
    """Return pixels (n, C) with runs of one colour merged."""
    return np.ascontiguousarray(pixels[np.r_[True, (pixels[1:] != pixels[:-1]).any(axis=1)]])


def _resized(image: NDArray[np.uint8], picture: Any) -> bool:
    """Return whether enlarging the image in one of the usual ways gives the picture."""
    from PIL import Image

    small = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    there = np.asarray(picture, dtype=np.int16)
    ways = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.NEAREST)
    return any(np.abs(np.asarray(small.resize(picture.size, way), dtype=np.int16) - there).mean() <= NEAR for way in ways)


def _varied(images: Images) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the middles of the rows with the most colours of each image, bytes (n, L), and the image of each. The outer colours of a row may
    merge with what is beside the image, so they are left out."""
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
