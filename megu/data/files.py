"""Every file in folders and archives, with a reader of its bytes."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from megu.data.arrays import is_disk_full
from megu.data.superclasses import SUPERCLASSES
from megu.errors import MeguError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")

File = tuple[str, str, int, Callable[[], bytes]]


def files_in(sources: Iterable[Path], stack: ExitStack) -> Iterator[File]:
    """(for messages, path inside the data set, bytes, reader) of every file in folders and archives."""
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                if path.parent == source and path.name.endswith(_ARCHIVES):
                    yield from _archive(path, stack)
                else:
                    yield str(path), path.relative_to(source).as_posix(), path.stat().st_size, path.read_bytes
        elif source.is_file() and source.name.endswith(_ARCHIVES):
            yield from _archive(source, stack)
        elif source.is_file() and source.suffix == ".json":
            yield str(source), SUPERCLASSES, source.stat().st_size, source.read_bytes
        elif source.exists():
            raise MeguError(
                f"{source} is neither a folder nor an archive", f"give a folder or a file ending in {', '.join(_ARCHIVES)}"
            )
        else:
            raise MeguError(f"{source} does not exist", "check the path")


def _archive(path: Path, stack: ExitStack) -> Iterator[File]:
    try:
        if path.name.endswith(".zip"):
            bundle = stack.enter_context(zipfile.ZipFile(path))
            for info in bundle.infolist():
                if not info.is_dir():
                    yield f"{path}:{info.filename}", info.filename, info.file_size, partial(bundle.read, info)
        else:
            # A compressed tar cannot be read out of order at a bearable speed, so its files are put aside as they pass, on disk.
            aside = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and (file := tar.extractfile(member)) is not None:
                        start = aside.tell()
                        shutil.copyfileobj(file, aside)
                        aside.flush()
                        read = partial(os.pread, aside.fileno(), member.size, start)
                        yield f"{path}:{member.name}", member.name, member.size, read
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if is_disk_full(error):
            raise
        raise MeguError(f"{path} is damaged or not an archive ({error})", "fetch the file again") from error
