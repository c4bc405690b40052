"""Which processes of a project are alive: each holds a lock on a file of its own, ``<home>/live/<name>``, for its whole life.

The lock is the operating system's and ends with the process, however that ends. Unlike a process id it is never reused, and it means
the same in every container that shares the folder. What a process starts elsewhere (flow runs in Prefect, runs in MLflow) carries the
name of its file, so anyone who finds a file without its lock knows what has to be closed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
from pathlib import Path

from megu.core.files.locks import locked

#: The name and the open file of this process, by home.
_held: dict[Path, tuple[str, int]] = {}
_guard = threading.Lock()


def hold(home: Path, note: str = "") -> str:
    """Return the name of this process in a project. Its lock is held from the first call until the process ends.

    note: stored in the file, for whoever cleans up (`note_of`).
    """
    home = home.resolve()
    with _guard:
        if home not in _held:
            _held[home] = _create(home / "live", note)
        return _held[home][0]


def lives(home: Path, name: str) -> bool | None:
    """Whether the process of this name is alive; None when there is no such file (it ended and was cleaned up, or belongs to another
    project)."""
    held = _held.get(home.resolve())
    if held and held[0] == name:
        return True
    try:
        file = os.open(home / "live" / name, os.O_RDWR)
    except OSError:
        return None
    try:
        return not locked(file)
    finally:
        os.close(file)


def dead(home: Path) -> list[str]:
    """Return the names of the processes that ended without `release`: killed, or stopped before everything was closed."""
    folder = home / "live"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if lives(home, name) is False]


def note_of(home: Path, name: str) -> str:
    """Return the note in a process's file; empty when there is none."""
    try:
        return (home / "live" / name).read_text(encoding="utf-8")
    except OSError:
        return ""


def forget(home: Path, name: str) -> None:
    """Remove the file of a dead process: everything it had begun is closed."""
    (home / "live" / name).unlink(missing_ok=True)


def release() -> None:
    """Give up the names of this process: everything it has begun is closed. Also called when the interpreter exits normally."""
    with _guard:
        while _held:
            home, (name, file) = _held.popitem()
            forget(home, name)
            os.close(file)


def _create(folder: Path, note: str) -> tuple[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        name = secrets.token_hex(8)
        file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # A clean-up may have seen the file before it was locked, and removed it.
        if locked(file) and (folder / name).exists():
            os.write(file, note.encode())
            return name, file
        (folder / name).unlink(missing_ok=True)
        os.close(file)


def _forked() -> None:
    """Close the inherited locks: a child is a process of its own, and must not keep its parent's lock alive."""
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.popitem()[1][1])


atexit.register(release)
os.register_at_fork(after_in_child=_forked)
