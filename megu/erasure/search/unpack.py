"""The contents of archives, file by file, in bounded memory: gzip, bzip2, xz, zip (including ``.npz``) and tar.

What cannot be read is reported, and hides nothing else.

A file of an archive is held in memory up to a certain size, beyond that in an unnamed temporary file. The total unpacked from one file is
limited too: a few kilobytes can unpack to something that fills a disk.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import mmap
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

_READ = 1 << 20
#: Most bytes of a file of an archive that are held in memory.
_IN_MEMORY = 1 << 26
#: Bytes that may be unpacked from one file: at least this many, or this many times its own size where that is more.
_AT_LEAST, _TIMES = 1 << 28, 30
#: What the standard library raises for a broken or encrypted archive.
_BROKEN: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError)
_BROKEN += (zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
#: First bytes of files that are packed or encrypted in a way that nothing here can undo.
_CLOSED = {
    b"7z\xbc\xaf\x27\x1c": "packed by 7-Zip",
    b"Rar!\x1a\x07": "packed by RAR",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard",
    b"Salted__": "encrypted",
    b"age-encryption.org/": "encrypted",
    b"-----BEGIN PGP MESSAGE": "encrypted",
}


class Budget:
    """How much may still be unpacked from one file. spent: whether that was too little."""

    def __init__(self, size: int) -> None:
        self.left, self.spent = max(_AT_LEAST, _TIMES * size), False

    def take(self, size: int) -> None:
        """Use up some bytes. Raises ``ValueError`` when nothing is left."""
        self.left -= size
        if self.left < 0:
            self.spent = True
            raise ValueError("it unpacks to more than is looked into, and what follows was not looked at")


@dataclass(frozen=True)
class Member:
    """A file of an archive. name: "" for the content of a compressed file. content: what could be read of it; valid until the next member.

    why: why it, or the rest of it, could not be read; "" when all of it was.
    """

    name: str
    content: memoryview
    why: str = ""


class Reader(io.RawIOBase):
    """Reads a buffer as a file, without copying it."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), len(self._content) - self._at), 0)
        buffer[:count] = self._content[self._at : self._at + count]
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, len(self._content))[whence]
        if self._at < 0:
            raise ValueError("before the beginning")
        return self._at

    def tell(self) -> int:
        return self._at


def is_archive(content: memoryview) -> bool:
    """Return whether something begins as an archive does, including kinds that `members` cannot open."""
    return _kind(content) is not None


def members(content: memoryview, budget: Budget) -> Iterator[Member]:
    """Yield the files of an archive, in order; nothing for anything else."""
    kind = _kind(content)
    if kind is None:
        return
    if isinstance(kind, str):
        yield Member("", memoryview(b""), kind)
        return
    try:
        for member in kind(content, budget):
            yield member
            if budget.spent:
                return
    except _BROKEN as error:
        yield Member("", memoryview(b""), describe(error))


def describe(error: BaseException) -> str:
    """Return why something cannot be read, in one short line."""
    said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return "encrypted" if "password" in said or "encrypted" in said else str(said)[:120]


_Opened = Iterator[Member]


def _kind(content: memoryview) -> Callable[[memoryview, Budget], _Opened] | str | None:
    head = bytes(content[:512])
    if head[:3] == b"\x1f\x8b\x08":
        return _compressed(lambda file: gzip.GzipFile(fileobj=file))
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return _compressed(bz2.BZ2File)
    if head[:6] == b"\xfd7zXZ\0":
        return _compressed(lzma.LZMAFile)
    if head[:4] in (b"PK\x03\x04", b"PK\x07\x08"):
        return _zip
    if head[257:262] == b"ustar" or _is_tar(head):
        return _tar
    return next((why for begin, why in _CLOSED.items() if head.startswith(begin)), None)


def _is_tar(head: bytes) -> bool:
    """Return whether a header of the oldest form of tar, which has no magic number, is whole."""
    if len(head) < 512 or not head[0]:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _compressed(opening: Callable[[Any], Any]) -> Callable[[memoryview, Budget], _Opened]:
    return lambda content, budget: _member("", lambda: opening(Reader(content)), budget)


def _zip(content: memoryview, budget: Budget) -> _Opened:
    with zipfile.ZipFile(Reader(content)) as archive:
        for info in archive.infolist():  # not by name: two files may have one
            if info.file_size or not info.is_dir():
                yield from _member(info.filename, partial(archive.open, info), budget)


def _tar(content: memoryview, budget: Budget) -> _Opened:
    """Yield the files of a tar. Data between files that is not one is reported: else a broken header would end the archive silently."""
    with tarfile.open(fileobj=Reader(content), mode="r:", ignore_zeros=True) as tar:
        end, after = 0, "its beginning"
        while True:
            entry = tar.next()
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps every entry it has passed
            begin = entry.offset if entry is not None else len(content)
            if np.frombuffer(content[end:begin], dtype=np.uint8).any():
                yield Member("", memoryview(b""), f"what follows {after} is no tar")
            if entry is None:
                return
            end, after = min(tar.offset, len(content)), entry.name
            if entry.isreg():
                yield from _member(entry.name, partial(tar.extractfile, entry), budget)


def _member(name: str, opening: Callable[[], Any], budget: Budget) -> _Opened:
    """Yield one file, with what was read of it before it broke."""
    why, held = "", io.BytesIO()
    with contextlib.ExitStack() as stack:
        aside: Any = None
        try:
            with opening() as stream:
                while piece := stream.read1(_READ):
                    budget.take(len(piece))
                    if aside is None and held.tell() + len(piece) > _IN_MEMORY:
                        aside = stack.enter_context(tempfile.TemporaryFile())
                        aside.write(held.getbuffer())
                        held = io.BytesIO()
                    (aside or held).write(piece)
        except _BROKEN as error:
            why = describe(error)
        if aside is None:
            yield Member(name, held.getbuffer(), why)
        else:
            aside.flush()
            # Not closed here: it closes itself when nothing refers to it any more.
            yield Member(name, memoryview(mmap.mmap(aside.fileno(), 0, access=mmap.ACCESS_READ)), why)


__all__ = ["Budget", "Member", "Reader", "describe", "is_archive", "members"]
