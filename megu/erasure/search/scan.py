"""Search files of any kind for forgotten samples: bytes of their images, their ids, and their images in another form.

Searched are: the file as it is; pictures anywhere in it, also as base64; the cells of a SQLite database, whose long values lie in pieces; and
the contents of archives (`megu.erasure.search.unpack`), to a depth of three. What cannot be read is reported as `Found.unreadable`: it may
hold anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from megu.data.arrays import Images
from megu.erasure.search.patterns import SearchPatterns
from megu.erasure.search.pictures import SUFFIXES, Pictures, pictures_in
from megu.erasure.search.resized import Resized
from megu.erasure.search.unpack import Budget, Reader, describe, is_archive, members

_DEPTH = 3
_SQLITE = b"SQLite format 3\0"
#: A database, its write-ahead log and its journal, in which long values lie in pieces.
_PIECES = (_SQLITE, b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
#: The largest database inside an archive that is opened; it is held in memory.
_DATABASE = 1 << 28
#: Suspected rows that are listed.
_ROWS = 20
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """What of the forgotten samples is in one place, and what cannot be determined.

    Certain, each a set of sample numbers: pixels: their bytes; copies: their images in another form; ids: their ids as text. A `Found` is
    true when something is certain.

    Doubtful: suspected: places in it that look like one of the images in another size. unreadable: parts of it that could not be read, and why;
    "" before the colon is the whole. Where there is a doubt, nobody may claim that nothing of them is there (`RESIDUAL`), and nothing is
    erased because of it.
    """

    pixels: frozenset[int] = frozenset()
    copies: frozenset[int] = frozenset()
    ids: frozenset[int] = frozenset()
    suspected: frozenset[str] = _NONE
    unreadable: frozenset[str] = _NONE

    def __bool__(self) -> bool:
        return bool(self.pixels or self.copies or self.ids)

    @property
    def images(self) -> bool:
        """Whether an image can be seen there; an id alone shows no image."""
        return bool(self.pixels or self.copies)

    @property
    def doubtful(self) -> bool:
        """Whether something of the samples may be there although nothing proves it."""
        return bool(self.suspected or self.unreadable)

    def __or__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__))

    def __str__(self) -> str:
        counts = {
            "the bytes of {} images": self.pixels,
            "{} images in another form": self.copies,
            "the ids of {} samples": self.ids,
        }
        said = [words.format(f"{len(numbers):,}") for words, numbers in counts.items() if numbers]
        said += [f"suspected: {_some(self.suspected)}"] if self.suspected else []
        said += [f"unreadable: {_some(self.unreadable)}"] if self.unreadable else []
        return ", ".join(said) or "nothing"


def _some(parts: frozenset[str], most: int = 3) -> str:
    """Return some of the parts, and how many more there are."""
    shown = [part.removeprefix(": ") for part in sorted(parts)[:most]]
    return "; ".join(shown) + (f"; and {len(parts) - most} more" if len(parts) > most else "")


@dataclass
class Scanner:
    """Searches for `SearchPatterns`. Files with equal content are searched once. files, size: how many files and bytes were searched."""

    patterns: SearchPatterns
    files: int = 0
    size: int = 0
    _pictures: Pictures = field(init=False, repr=False)
    _resized: Resized = field(init=False, repr=False)
    _known: dict[tuple[str, str], Found] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._pictures, self._resized = Pictures(self.patterns.images), Resized(self.patterns.images)

    @property
    def images(self) -> Images:
        return self.patterns.images

    def file(self, path: Path) -> Found:
        """Search a file. Raises ``FileNotFoundError`` for one that vanishes; one that cannot be read is `Found.unreadable`."""
        return inspect([self], path)[0]

    def content(self, content: bytes, suffix: str = "") -> Found:
        """Search some bytes. suffix: of a file's name, ".png"."""
        return self._in(memoryview(content), suffix, _DEPTH, Budget(len(content)))

    def mapped(self, path: Path, content: memoryview, digest: str) -> Found:
        """Search a file whose content and SHA-256 are already known."""
        self.files += 1
        self.size += len(content)
        suffix = _suffix(path.name)
        if (digest, suffix) not in self._known:
            found = self._in(content, suffix, _DEPTH, Budget(len(content)), nested=False)
            if bytes(content[: len(_SQLITE)]) == _SQLITE:
                found |= self._in_cells(lambda: _read_only(path))
            self._known[digest, suffix] = found
        return self._known[digest, suffix]

    def _in(self, content: memoryview, suffix: str, depth: int, budget: Budget, nested: bool = True) -> Found:
        copies, unreadable, found = set[int](), set[str](), Found()
        whole = not bytes(content[:16]).startswith(_PIECES)
        for picture in pictures_in(content, suffix):
            if isinstance(picture, np.ndarray):
                copies |= self._pictures.find(picture)
                if picture[..., 0].size < self.images[0, ..., 0].size:
                    found |= self._in_rows(picture[None], "a picture looks like one of the images in another size")
            elif whole:
                unreadable.add(f": {picture.why}")
        found |= Found(
            frozenset(self.patterns.pixels_in(content)),
            frozenset(copies),
            frozenset(self.patterns.ids_in(content)),
            unreadable=frozenset(unreadable),
        )
        if (rows := _images_in(content)) is not None:
            found |= self._in_rows(rows)
        if nested and bytes(content[: len(_SQLITE)]) == _SQLITE:
            found |= self._in_cells(lambda: _in_memory(content))
        if depth:
            for member in members(content, budget):
                inner = self._in(member.content, _suffix(member.name), depth - 1, budget)
                if member.why:
                    inner |= Found(unreadable=frozenset({f": {member.why}"}))
                found |= _inside(member.name, inner)
        elif is_archive(content):
            found |= Found(unreadable=frozenset({f": packed more than {_DEPTH} deep"}))
        return found

    def _in_rows(self, rows: Images, words: str = "") -> Found:
        """Search an array of images of another size. words: describes what is suspected; without it, the rows are listed."""
        matches = self._resized.find(rows)
        at = np.flatnonzero(matches.suspected)
        few = ", ".join(map(str, at[:_ROWS].tolist())) + (", …" if len(at) > _ROWS else "")
        words = words or f"{len(at):,} rows look like images of them in another size, from 0: {few}"
        suspected = {f": {words}"} if len(at) else set()
        return Found(
            copies=frozenset(matches.certain[matches.certain >= 0].tolist()),
            suspected=frozenset(suspected),
        )

    def _in_cells(self, opening: Callable[[], sqlite3.Connection]) -> Found:
        found, broken = Found(), set[str]()
        for table, _, value in cells(opening, broken):
            found |= _inside(table, self.content(value))
        return found | Found(unreadable=frozenset(broken))


def inspect(scanners: Sequence[Scanner], path: Path) -> tuple[Found, str | None]:
    """Return what all scanners find in a file, and its SHA-256; None where the file, or a folder, cannot be read.

    Raises ``FileNotFoundError`` for a file that vanishes.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not file.seek(0, 2):
                return Found(), digest
            # Not closed here: it closes itself when nothing refers to it any more.
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise
    except OSError as error:
        return Found(unreadable=frozenset({f": {describe(error)}"})), None
    found = Found()
    for scanner in scanners:
        found |= scanner.mapped(path, content, digest)
    return found, digest


def _images_in(content: memoryview) -> Images | None:
    """Return the images (n, h, w, c) in a NumPy file; None for any other content."""
    if bytes(content[:6]) != b"\x93NUMPY":
        return None
    try:
        file = Reader(content)
        version = np.lib.format.read_magic(file)
        reading = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reading(file)
        if dtype != np.uint8 or fortran or not 3 <= len(shape) <= 4:
            return None
        values: Images = np.frombuffer(content, np.uint8, offset=file.tell()).reshape(shape)
    except ValueError:  # cut off, or no header: it is searched as bytes
        return None
    if len(shape) == 3:
        values = values[None] if shape[2] == 3 else values[..., None]
    elif shape[3] not in (1, 3) and shape[1] in (1, 3):  # channels first, as in tensors
        values = values.transpose(0, 2, 3, 1)
    return (
        values if values.shape[3] in (1, 3) and len(values) and all(4 <= side <= 4096 for side in values.shape[1:3]) else None
    )


def _suffix(name: str) -> str:
    """Return the suffix by which a file name marks a picture; empty for macOS's companion files (``._a.png``)."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES and not path.name.startswith("._") else ""


def _inside(name: str, found: Found) -> Found:
    """Return what was found inside a part, with its places as seen from outside."""
    if not name or not found.doubtful:
        return found
    moved = [
        frozenset(f"{name}{'' if part.startswith(':') else '/'}{part}" for part in parts)
        for parts in (found.suspected, found.unreadable)
    ]
    return Found(found.pixels, found.copies, found.ids, *moved)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)


def _in_memory(content: memoryview) -> sqlite3.Connection:
    """Open a database that is not a file. Raises ``sqlite3.Error`` for one that is too large."""
    if len(content) > _DATABASE:
        raise sqlite3.DataError("a database too large to be opened here")
    whole = bytearray(content)
    whole[18:20] = b"\1\1"  # a database with a separate journal would look for that file
    opened = sqlite3.connect(":memory:")
    opened.deserialize(whole)
    return opened


def cells(opening: Callable[[], sqlite3.Connection], broken: set[str], least: int = 32) -> Iterator[tuple[str, str, bytes]]:
    """Yield table, column and content of every text or blob of a SQLite database that is long enough to hold an id.

    broken: collects what cannot be read, and why.
    """
    try:
        with contextlib.closing(opening()) as opened:
            opened.text_factory = bytes
            tables = [name.decode() for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                yield from _cells_of(opened, table, broken, least)
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        broken.add(f": a database that cannot be read ({describe(error)})")


def _cells_of(opened: sqlite3.Connection, table: str, broken: set[str], least: int) -> Iterator[tuple[str, str, bytes]]:
    quoted = table.replace('"', '""')
    try:
        cursor = opened.execute(f'SELECT * FROM "{quoted}"')
        names = [column[0] for column in cursor.description]
        for row in cursor:
            for name, value in zip(names, row, strict=True):
                if isinstance(value, bytes) and len(value) >= least:
                    yield table, name, value
    except sqlite3.Error as error:
        if "no such module" not in str(error):  # a virtual table, whose data are in other tables
            broken.add(f"{table}: cannot be read ({describe(error)})")


__all__ = ["Found", "Scanner", "cells", "inspect"]
