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

#: An archive that holds more than this, and more than so many times its own size, is taken for one made to fill the disk.
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
_LINK = "is a link, which an archive cannot be asked to follow"
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, NotImplementedError),
)


def archive(path: Path, stack: ExitStack) -> Iterator[File]:
    """Every file and folder in an archive, which stays open until the stack is closed.

    Raises `MeguError` for an archive that is damaged, cut short, or made to fill the disk.
    """
    files = _zip(path, stack) if path.name.lower().endswith(".zip") else _tar(path, stack)
    unpacked, room = 0, max(_ROOM, _RATIO * path.stat().st_size)
    try:
        for file in files:
            unpacked += file.size
            if unpacked > room:
                raise MeguError(
                    f"{shown(str(path))} unpacks to more than {_RATIO} times its size, as archives do that are made to fill a disk",
                    "if it is right, unpack it and add the folder",
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
    """The name of a zip's member, and why it cannot be told.

    A name without the flag for UTF-8 is by the letter of the specification in code page 437, and in truth in any: UTF-8 is known by its form,
    and a name that is not is not guessed at.
    """
    name, problem = info.orig_filename, ""
    if not info.flag_bits & 0x800 and not name.isascii():
        raw = name.encode("cp437")
        try:
            name = _unicode_path(info.extra, raw) or raw.decode("utf-8")
        except UnicodeDecodeError:
            problem = "has a name in a code page that the archive does not tell"
    # Windows' own packers wrote "\" for a while; other systems may have it in a name.
    return name.replace("\\", "/") if info.create_system == 0 or "/" not in name else name, problem


def _unicode_path(extra: bytes, raw: bytes) -> str:
    """The name in a zip's extra field 0x7075, "" where there is none for this name."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and len(field) > 5 and field[0] == 1 and struct.unpack("<I", field[1:5])[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8")
    return ""


def _tar(path: Path, stack: ExitStack) -> Iterator[File]:
    # A compressed tar cannot be read out of order at a bearable speed, so its images are put aside as they pass, on disk.
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
    """Raise `ValueError` where an archive does not end in blocks of zeros: `tarfile` takes what is cut short or damaged for its end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise ValueError("it is cut short")
    while rest:
        if rest.strip(b"\0"):
            raise ValueError("there is something after its end, or in place of a file")
        rest = tar.fileobj.read(1 << 20)
