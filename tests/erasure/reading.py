"""Read every byte below some folders without megu: where a picture or an id can be read, and what has changed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

#: Not data: keys, and what git keeps.
PASSED = {"keys", ".git"}


def files(roots: Iterable[Path]) -> Iterator[Path]:
    """Every file below, links to files too, no folder through a link."""
    for root in roots:
        for folder, names, found in os.walk(root):
            names[:] = sorted(name for name in names if name not in PASSED)
            linked = [name for name in names if os.path.islink(os.path.join(folder, name))]
            yield from (Path(folder, name) for name in sorted([*found, *linked]))


def contents(content: bytes, depth: int = 4) -> Iterator[bytes]:
    """Some bytes, and everything packed in them that can be read."""
    yield content
    if not depth:
        return
    for inner in _packed(content):
        yield from contents(inner, depth - 1)


def _packed(content: bytes) -> Iterator[bytes]:
    if content[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError):
            yield gzip.decompress(content)
    if content[:2] == b"PK":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                with suppress(Exception):
                    yield archive.read(name)
    if content[257:262] == b"ustar":
        with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                if (opened := archive.extractfile(member)) is not None:
                    yield opened.read()
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]+)", content):
        with suppress(ValueError):
            yield base64.b64decode(match.group(1))


def cells(path: Path) -> list[bytes]:
    """Every value of a database."""
    found = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as opened:
        opened.text_factory = bytes
        for (table,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in opened.execute(f'SELECT * FROM "{table.decode()}"'):
                found += [value if isinstance(value, bytes) else str(value).encode() for value in row if value is not None]
    return found


def pictures(content: bytes) -> Iterator[Any]:
    """Pictures at the beginning of some bytes, or after a tag of a page."""
    for start in {0, *(match.start() for match in re.finditer(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|BM", content))}:
        with suppress(Exception), Image.open(io.BytesIO(content[start:])) as picture:
            yield picture.convert("RGB")


def arrays_in(content: bytes) -> Iterator[Any]:
    """The images (n, h, w, c) that a NumPy file holds."""
    with suppress(ValueError, EOFError):
        found = np.load(io.BytesIO(content), allow_pickle=False) if content[:6] == b"\x93NUMPY" else None
        if found is not None and found.dtype == np.uint8 and found.ndim == 4 and found.shape[3] in (1, 3) and found.size:
            yield found


def alike(rows: Any, images: list[Any]) -> set[int]:
    """The numbers of the images (H, W, C each) that one of some rows (n, h, w, c) is, in its size or made larger or smaller.

    Both are made small, and grey levels rise and fall together: whichever filter resized them, the correlation of one picture is above 0.95
    in the projects here, and of two below 0.6.
    """
    found = set[int]()
    for shape in {image.shape[:2] for image in images}:
        numbers = [number for number, image in enumerate(images) if image.shape[:2] == shape]
        own, there = _grey(images[number] for number in numbers), _grey(rows)
        small = min(there[0].size, own[0].size, key=lambda size: size[0] * size[1])
        # Either may be the middle of the other.
        for some, others in ((_middles(own, there[0].size), there), (own, _middles(there, own[0].size))):
            same = _small(some, small) @ _small(others, small).T > 0.85
            found |= {numbers[at] for at in np.flatnonzero(same.any(axis=1))}
    return found


def _grey(images: Iterable[Any]) -> list[Any]:
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("L") for image in images]


def _middles(images: list[Any], size: tuple[int, int]) -> list[Any]:
    """The middle of each that has the shape of a size (width, height)."""
    return [ImageOps.fit(image, _within(image.size, size)) for image in images]


def _within(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    least = min(size[0] / shape[0], size[1] / shape[1])
    return max(round(shape[0] * least), 1), max(round(shape[1] * least), 1)


def _small(images: list[Any], size: tuple[int, int]) -> Any:
    """(n, pixels), each of mean 0 and length 1; 0 for one of one shade, or where too little is left to tell."""
    made = [np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64).ravel() for image in images]
    levels = np.stack(made) - np.mean(made, axis=1, keepdims=True)
    return levels / np.maximum(np.linalg.norm(levels, axis=1, keepdims=True), 1e-9) * (min(size) >= 4)


def readable(path: Path, images: Iterable[Any], ids: Iterable[str]) -> list[str]:
    """What of the samples can be read in a file, in words."""
    images, ids, found = list(images), [identifier.encode() for identifier in ids], []
    content = path.read_bytes()
    parts = list(contents(content))
    if content[:15] == b"SQLite format 3":
        parts += cells(path)
    for part in parts:
        found += [f"the id {identifier.decode()}" for identifier in ids if identifier in part]
        for number, image in enumerate(images):
            if image.tobytes() in part or image.transpose(2, 0, 1).tobytes() in part:
                found.append(f"the bytes of image {number}")
        for picture in pictures(part):
            found += [f"a picture of image {number}" for number in alike(np.asarray(picture)[None], images)]
        for rows in arrays_in(part):
            found += [f"a row that is image {number}, in whatever size" for number in alike(rows, images)]
    return sorted(set(found))


def snapshot(roots: Iterable[Path]) -> dict[Path, tuple[str, str]]:
    """Every file: where it leads, if it is a link, and the SHA-256 of what is read there ("gone" for one that leads nowhere)."""
    return {
        path: (
            str(path.readlink()) if path.is_symlink() else "",
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder" if path.is_dir() else "gone",
        )
        for path in files(roots)
    }


def rows(path: Path) -> list[str]:
    """What a database has, row by row."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as opened:
        return list(opened.iterdump())
