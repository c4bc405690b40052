"""Search files of any kind for forgotten samples: bytes of their images, their ids, and their images in another form.

Looked into: the file as it is; pictures anywhere in it, also as base64; the cells of a SQLite database, whose long values lie in pieces; and
what gzip, zip (so ``.npz``) and tar have packed, to a depth of three. Not seen: what is encrypted, or packed in another way.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import mmap
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megu.data.arrays import Images
from megu.purge.needles import Needles
from megu.purge.pictures import Pictures, pictures_in, whole
from megu.store import sha256_file

_DEPTH = 3
_SQLITE = b"SQLite format 3\0"
_PICTURES = {".bmp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Found:
    """What of the forgotten samples is in one place, each a set of numbers of them. pixels: their bytes. copies: in another form.
    ids: their ids as text."""

    pixels: frozenset[int] = frozenset()
    copies: frozenset[int] = frozenset()
    ids: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.pixels or self.copies or self.ids)

    @property
    def images(self) -> bool:
        """Whether an image can be seen there; an id alone shows none."""
        return bool(self.pixels or self.copies)

    def __or__(self, other: Found) -> Found:
        return Found(self.pixels | other.pixels, self.copies | other.copies, self.ids | other.ids)

    def __str__(self) -> str:
        counts = {
            "the bytes of {} images": self.pixels,
            "{} images in another form": self.copies,
            "the ids of {} samples": self.ids,
        }
        return ", ".join(words.format(f"{len(numbers):,}") for words, numbers in counts.items() if numbers) or "nothing"


@dataclass
class Scanner:
    """Looks for `Needles`. Files of the same content are looked into once. files, size: how many files and bytes were looked at."""

    needles: Needles
    files: int = 0
    size: int = 0
    _pictures: Pictures = field(init=False, repr=False)
    _known: dict[str, Found] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._pictures = Pictures(self.needles.images)

    @property
    def images(self) -> Images:
        return self.needles.images

    def scan(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Found]]:
        """Every file in which something was found. A file that vanishes meanwhile is passed over.

        Raises ``OSError`` for one that cannot be read: it may hold anything.
        """
        for path in paths:
            try:
                if found := self.file(path):
                    yield path, found
            except FileNotFoundError:
                continue

    def file(self, path: Path) -> Found:
        size = path.stat().st_size
        self.files += 1
        self.size += size
        if not size:
            return Found()
        digest = sha256_file(path)
        if digest not in self._known:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self._known[digest] = self._in(memoryview(content), path.suffix.lower(), _DEPTH)
            if self._starts(path, _SQLITE):
                self._known[digest] |= self._in_cells(path)
        return self._known[digest]

    def content(self, content: bytes, suffix: str = "") -> Found:
        """What is in some bytes."""
        return self._in(memoryview(content), suffix, _DEPTH)

    def _in(self, content: memoryview, suffix: str, depth: int) -> Found:
        pictures = list(pictures_in(content))
        if suffix in _PICTURES and (opened := whole(bytes(content))) is not None:
            pictures.append(opened)
        copies = frozenset[int]().union(*(self._pictures.find(picture) for picture in pictures))
        found = Found(frozenset(self.needles.pixels_in(content)), copies, frozenset(self.needles.ids_in(content)))
        if depth:
            for inner in _unpacked(content):
                found |= self._in(memoryview(inner), "", depth - 1)
        content.release()
        return found

    def _in_cells(self, path: Path) -> Found:
        found = Found()
        for _, _, value in cells(path):
            found |= self.content(value)
        return found

    @staticmethod
    def _starts(path: Path, head: bytes) -> bool:
        with path.open("rb") as file:
            return file.read(len(head)) == head


def cells(database: Path, least: int = 32) -> Iterator[tuple[str, str, bytes]]:
    """Table, column and content of every text or blob of a SQLite database that is long enough to hold an id."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as opened:
        opened.text_factory = bytes
        tables = [name.decode() for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            with contextlib.suppress(
                sqlite3.OperationalError
            ):  # a virtual table whose module is not here; its data are in others
                cursor = opened.execute(f'SELECT * FROM "{table}"')
                names = [column[0] for column in cursor.description]
                for row in cursor:
                    for name, value in zip(names, row, strict=True):
                        if isinstance(value, bytes) and len(value) >= least:
                            yield table, name, value


def _unpacked(content: memoryview) -> Iterator[bytes]:
    """What an archive holds; nothing of what is none or is broken."""
    head = bytes(content[:262])
    with contextlib.suppress(
        OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError
    ):
        if head[:2] == b"\x1f\x8b":
            yield gzip.decompress(content)
        elif head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    yield archive.read(name)
        elif head[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    if (opened := tar.extractfile(member)) is not None:
                        yield opened.read()


__all__ = ["Found", "Scanner", "cells"]
