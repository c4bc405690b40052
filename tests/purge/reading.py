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
from PIL import Image

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


def shows(picture: Any, image: Any) -> bool:
    """Whether a picture is an image (H, W, C), in its size, made larger or smaller."""
    channels = image.shape[2]
    own = Image.fromarray(image[..., 0] if channels == 1 else image).convert("RGB")
    small = min((own.size, picture.size), key=lambda size: size[0] * size[1])
    one, other = (np.asarray(each.resize(small, Image.Resampling.BOX), dtype=np.float32) for each in (own, picture))
    return min(small) >= 4 and float(np.abs(one - other).mean()) < 3.0


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
            found += [f"a picture of image {number}" for number, image in enumerate(images) if shows(picture, image)]
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
