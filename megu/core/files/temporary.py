"""Temporary files and folders beside what they will become, with an identifiable owner: it holds a lock on them as long as it is alive.

What a killed process leaves has no owner, and may be removed at once; what a slow process is still writing has one, however long it is
silent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megu.core.files.locks import locked

#: The file in a temporary folder that its owner locks.
OWNER = ".owner"
#: Seconds for which an empty folder is left alone: it may have just been created and not be locked yet.
YOUNG_S = 60.0


@contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a temporary folder, owned by this process, which is removed with its content at the end of the block."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with (made / OWNER).open("w") as owner:
            locked(owner.fileno())
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def file(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty temporary file, owned by this process, which is removed at the end of the block unless it was renamed."""
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, dir=parent)
        locked(handle)
        if os.path.exists(name):  # else a clean-up was faster than the lock
            break
        os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(handle)


def abandoned(path: Path) -> bool:
    """Whether the owner of a temporary file or folder is dead. A folder that never had one belongs to somebody else, unless it is
    empty."""
    try:
        if path.is_dir() and not (path / OWNER).exists():
            return not any(path.iterdir()) and time.time() - path.stat().st_mtime >= YOUNG_S
        with (path / OWNER if path.is_dir() else path).open("rb") as opened:
            return locked(opened.fileno())
    except OSError:
        return False
