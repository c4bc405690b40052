"""Folders, images, archives and names as people have them: a generator of files, each form with what has to come of it.

A form gets a small good set, spoils or adds something, and says what is expected: the same pixels wherever nothing is said, other ones where
`Made.images` has them, what ``meta.json`` counts, what is said, or the words of the refusal.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 3, 4
KEYS = ("train/cat/0", "train/cat/1", "train/dog/0", "test/cat/0", "test/dog/0")


def pixels(seed: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


@dataclass
class Made:
    """A good set in ``root`` and what is expected of it, for a form to change.

    source: what is added. images: path without ending -> pixels. ignored, converted, repeated: as in ``meta.json``. said: parts of lines.
    refused: a part of the refusal, "" where there is none. max_corrupt: as asked for.
    """

    root: Path
    source: Path | list[Path] = field(init=False)
    images: dict[str, Pixels] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    refused: str = ""
    max_corrupt: float = 0.0

    def __post_init__(self) -> None:
        self.source = self.root
        for seed, key in enumerate(KEYS):
            self.add(key, pixels(seed))

    def add(self, key: str, array: Pixels) -> Path:
        path = self.root / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        self.images[key] = array
        return path

    def put(self, name: str, content: bytes, expected: Pixels | None = None, key: str = "train/cat/0") -> None:
        """Put a file in the place of an image."""
        (self.root / f"{key}.png").unlink()
        (self.root / key).with_name(name).write_bytes(content)
        if expected is not None:
            self.images[key] = expected

    def zipped(self, name: str = "set.zip", **how: Any) -> Path:
        """The whole set as a zip, which becomes the source."""
        self.source = path = self.root.with_name(name)
        with zipfile.ZipFile(path, "w", **how) as archive:
            for file in sorted(self.root.rglob("*.png")):
                archive.write(file, file.relative_to(self.root))
        return path

    def tarred(self, name: str = "set.tar", mode: str = "w") -> Path:
        self.source = path = self.root.with_name(name)
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            archive.add(self.root, arcname="set")
        return path


Form = Callable[[Made], None]
FORMS: dict[str, Form] = {}


def form(made: Form) -> Form:
    FORMS[made.__name__] = made
    return made


def forms(name: str, **variants: Any) -> Callable[[Callable[[Made, Any], None]], None]:
    """One function, many forms."""

    def register(made: Callable[[Made, Any], None]) -> None:
        for variant, value in variants.items():
            FORMS[f"{name}_{variant}"] = lambda given, value=value: made(given, value)

    return register


def encoded(array: Any, kind: str, mode: str | None = None, **options: Any) -> bytes:
    target = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(target, kind, **options)
    return target.getvalue()


def tiff(values: Any, kind: int, *, photometric: int = 1, order: str = "<", bits: int = 0) -> bytes:
    """A plain TIFF of one channel. kind: 1 unsigned, 2 signed, 3 floating point. bits: of packed values."""
    data = values if isinstance(values, bytes) else np.asarray(values).astype(values.dtype.newbyteorder(order)).tobytes()
    depth = bits or values.dtype.itemsize * 8
    tags = [(256, WIDTH), (257, HEIGHT), (258, depth), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, HEIGHT), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + directory


def png(header: bytes, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks. header: depth, colour type and three zeros."""
    chunks = [(b"IHDR", struct.pack(">II", WIDTH, HEIGHT) + header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def scanlines(array: Any) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in array)


def on_white(colour: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(float)[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def grey(levels: Pixels) -> Pixels:
    return np.repeat(levels[..., None], 3, axis=2)
