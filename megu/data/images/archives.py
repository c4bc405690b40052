"""The files in a zip or tar archive."""

from __future__ import annotations

import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

from megu.core.errors import MeguError
from megu.data.images.layout import LARGEST, File, can_be_sample
from megu.data.naming import shown
from megu.data.writing import is_disk_full

#: An archive with more bytes than `_ROOM`, and more than `_RATIO` times its own size, is treated as one made to fill the disk.
_ROOM, _RATIO = 1 << 30, 200
_METHODS = {
    zipfile.ZIP_STORED: "",
    zipfile.ZIP_DEFLATED: "",
    zipfile.ZIP_BZIP2: "",
    zipfile.ZIP_LZMA: "",
    9: "Deflate64",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
}
_LINK = "is a link, which cannot be followed inside an archive"
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, NotImplementedError),
)


def archive(path: Path, stack: ExitStack) -> Iterator[File]:
    """Yield every file and folder in an archive, which stays open until the stack is closed.

    Raises `MeguError` for an archive that is damaged, truncated, or made to fill the disk.
    """
    files = _zip(path, stack) if path.name.lower().endswith(".zip") else _tar(path, stack)
    unpacked, room = 0, max(_ROOM, _RATIO * path.stat().st_size)
    try:
        for file in files:
            unpacked += file.size
            if unpacked > room:
                raise MeguError(
                    f"{shown(str(path))} unpacks to more than {_RATIO} times its size, as archives made to fill a disk do",
                    "if it is genuine, unpack it and add the folder",
                )
            yield file
    except _DAMAGED as error:
        if is_disk_full(error):
            raise
        raise MeguError(
            f"{shown(str(path))} is damaged or not an archive ({' '.join(str(error).split())})", "get the archive again"
        ) from error


def _zip(path: Path, stack: ExitStack) -> Iterator[File]:
    bundle = stack.enter_context(zipfile.ZipFile(path))
    for info in bundle.infolist():
        name, problem = _name(info)
        if info.compress_type not in _METHODS or _METHODS[info.compress_type]:
            method = _METHODS.get(info.compress_type) or f"method {info.compress_type}"
            problem = f"is packed with {method}, which cannot be read here"
        if info.flag_bits & 0x41:
            problem = "is encrypted"
        if info.create_system == 3 and stat.S_ISLNK(info.external_attr >> 16):
            problem = _LINK
        yield File(f"{path}:{name}", name, info.file_size, partial(bundle.read, info), problem, name.endswith("/"))


def _name(info: zipfile.ZipInfo) -> tuple[str, str]:
    """Return the name of a zip member, and the reason where it cannot be determined.

    By the specification a name without the UTF-8 flag is in code page 437; in practice it may be in any. UTF-8 can be recognised by its
    form; a name in anything else is not guessed.
    """
    name, problem = info.orig_filename, ""
    if not info.flag_bits & 0x800 and not name.isascii():
        raw = name.encode("cp437")
        try:
            name = _unicode_path(info.extra, raw) or raw.decode("utf-8")
        except UnicodeDecodeError:
            problem = "has a name in a code page that the archive does not tell"
    # Windows' own packers wrote "\" as the separator for a while; on other systems it may be part of a name.
    return name.replace("\\", "/") if info.create_system == 0 or "/" not in name else name, problem


def _unicode_path(extra: bytes, raw: bytes) -> str:
    """Return the name in a zip's extra field 0x7075, "" where it has none for this name."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and len(field) > 5 and field[0] == 1 and struct.unpack("<I", field[1:5])[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8")
    return ""


def _tar(path: Path, stack: ExitStack) -> Iterator[File]:
    # Reading a compressed tar out of order is too slow, so its images are copied to disk as they pass.
    aside = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    known: dict[str, File] = {}
    with tarfile.open(path, encoding="utf-8") as tar:
        for member in tar:
            name, problem, size, read = member.name, "", 0 if member.isdir() else member.size, _nothing
            if member.issym():
                problem = _LINK
            elif member.islnk():
                if (target := known.get(posixpath.normpath(member.linkname))) is None:
                    problem = "is a link to a file that the archive does not have"
                else:
                    read, size = target.read, target.size
            elif not (member.isfile() or member.isdir()):
                problem = "is neither a file nor a folder but a pipe or a device"
            elif member.isfile() and can_be_sample(name) and size <= LARGEST and (opened := tar.extractfile(member)):
                read = _put_aside(opened, aside, size)
            file = File(f"{path}:{name}", name, size, read, problem, member.isdir())
            known[posixpath.normpath(name)] = file
            yield file
        _check_end(tar)


def _put_aside(opened: IO[bytes], aside: IO[bytes], size: int) -> Callable[[], bytes]:
    start = aside.tell()
    shutil.copyfileobj(opened, aside)
    aside.flush()
    return partial(os.pread, aside.fileno(), size, start)


def _nothing() -> bytes:
    return b""


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise `ValueError` where an archive does not end in blocks of zeros: `tarfile` takes truncated or damaged data for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise ValueError("it is cut short")
    while rest:
        if rest.strip(b"\0"):
            raise ValueError("there is something after its end, or in place of a file")
        rest = tar.fileobj.read(1 << 20)
