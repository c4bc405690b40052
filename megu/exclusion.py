"""A purge and whatever writes into a project exclude each other: what is written while a purge looks would be missed, and signed as erased.

Both hold a lock of the operating system on files of ``.megu``: it ends with the process, however that ends, and means the same in every
container that shares the folder. Nobody waits: who comes second is refused in one line.
"""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from megu.errors import MeguError
from megu.project import Project, find

F = TypeVar("F", bound=Callable[..., Any])

_WORK, _PURGE = "work.lock", "purge.lock"


@contextmanager
def working(project: Project) -> Iterator[None]:
    """Keep purges out for as long as the block lasts; any number may work at once. Raises `MeguError` while a purge is under way."""
    with _held(project.home / _WORK, fcntl.LOCK_SH) as free:
        if not free:
            raise MeguError("a purge is under way, and would miss what is written now", "wait until it has ended")
        yield


@contextmanager
def purging(project: Project) -> Iterator[None]:
    """Keep everything else out for as long as the block lasts. Raises `MeguError` while a purge, or something that writes, is under way."""
    with _held(project.home / _PURGE, fcntl.LOCK_EX) as first:
        if not first:
            raise MeguError("another purge is under way", "wait until it has ended")
        with _held(project.home / _WORK, fcntl.LOCK_EX) as free:
            if not free:
                raise MeguError(
                    "a run is under way in this project, and may write what is looked for",
                    "wait for it, or stop it (`megu status`)",
                )
            yield


def while_no_purge(function: F) -> F:
    """Decorate the function of a flow: it is refused while a purge of the project is under way, and keeps purges out."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with working(find()):
            return function(*arguments, **named)

    return run  # type: ignore[return-value]


@contextmanager
def _held(path: Path, kind: int) -> Iterator[bool]:
    """Whether the lock could be had at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
