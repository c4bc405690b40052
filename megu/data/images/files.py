"""List every file in folders and archives, with a reader for its bytes. Nothing is unpacked by name, so no name can escape to a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from megu.core.errors import MeguError
from megu.data.images.archives import archive
from megu.data.images.clutter import clutter
from megu.data.images.layout import ARCHIVES, File
from megu.data.naming import shown
from megu.data.superclasses import SUPERCLASSES

#: The deepest nesting of folders.
_DEEPEST = 64


def files_in(sources: Iterable[Path], stack: ExitStack) -> Iterator[File]:
    """Yield every file and folder in folders and archives; archives stay open until the stack is closed.

    Raises `MeguError` for a source that is neither, cannot be read, or links to itself in a circle.
    """
    for source in sources:
        if source.is_dir():
            for file in _walk(source):
                top = not file.folder and "/" not in file.name and file.name.lower().endswith(ARCHIVES)
                if top and not file.problem and clutter([file.name]) is None:
                    yield from archive(source / file.name, stack)
                else:
                    yield file
        elif source.is_file() and source.name.lower().endswith(ARCHIVES):
            yield from archive(source, stack)
        elif source.is_file() and source.suffix.lower() == ".json":
            yield File(str(source), SUPERCLASSES, source.stat().st_size, source.read_bytes)
        elif source.exists():
            raise MeguError(
                f"{shown(str(source))} is neither a folder nor an archive",
                f"give a folder or a file ending in {', '.join(ARCHIVES)}",
            )
        else:
            raise MeguError(f"{shown(str(source))} does not exist", "check the path")


def _walk(root: Path) -> Iterator[File]:
    """Yield every file and folder below a folder, ordered by name. Links are followed: that is what they were made for."""
    try:
        state = os.stat(root)
        yield from _below(root, PurePosixPath(), ((state.st_dev, state.st_ino),))
    except OSError as error:
        raise MeguError(
            f"{shown(str(error.filename or root))} cannot be read ({error.strerror})",
            "run as a user who may read it, or move it away",
        ) from error


def _below(folder: Path, inside: PurePosixPath, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path, name = folder / entry.name, inside / entry.name
        where, left_out = str(path), clutter(name.parts) is not None
        try:
            state = entry.stat(follow_symlinks=not left_out)
        except OSError as error:
            problem = f"{'is a link that leads nowhere' if entry.is_symlink() else 'cannot be read'} ({error.strerror})"
            yield File(where, str(name), 0, path.read_bytes, problem)
            continue
        if stat.S_ISDIR(state.st_mode):
            if len(name.parts) > _DEEPEST:
                raise MeguError(
                    f"{shown(where)} lies more than {_DEEPEST} folders deep", "lay images out as train/<class>/<image>"
                )
            identity = (state.st_dev, state.st_ino)
            if identity in above:
                raise MeguError(f"{shown(where)} is a link to a folder that it is in itself", "remove the link")
            yield File(where, str(name), 0, path.read_bytes, folder=True)
            yield from _below(path, name, (*above, identity))
        else:
            problem = "" if stat.S_ISREG(state.st_mode) else "is neither a file nor a folder but a pipe, a socket or a device"
            yield File(where, str(name), state.st_size, path.read_bytes, problem)
