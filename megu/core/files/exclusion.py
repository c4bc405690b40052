"""A purge and anything that writes into a project exclude each other: a purge would miss what is written during its search, and sign it
as erased.

Both hold a lock on files of ``.megu``. Nobody waits: the second is refused in one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from megu.core.errors import MeguError
from megu.core.files.locks import at_once
from megu.core.project import Project, find

F = TypeVar("F", bound=Callable[..., Any])

_WORK, _PURGE = "work.lock", "purge.lock"
#: Working files of a purge, below the home; removed when it is done.
JOURNAL, PLAN = "purge", "plan.json"


def unfinished(project: Project) -> bool:
    """Whether a purge has begun and not finished: its journal (`megu.erasure.journal`) exists and has its plan."""
    return (project.home / JOURNAL / PLAN).is_file()


@contextmanager
def working(project: Project) -> Iterator[None]:
    """Keep purges out during the block; any number of processes may work at once. Raises `MeguError` while a purge is under way."""
    with at_once(project.home / _WORK, shared=True) as free:
        if not free:
            raise MeguError("a purge is under way, and would miss what is written now", "wait until it has ended")
        yield


@contextmanager
def purging(project: Project) -> Iterator[None]:
    """Keep everything else out during the block. Raises `MeguError` while another purge, or something that writes, is under way."""
    with at_once(project.home / _PURGE) as first:
        if not first:
            raise MeguError("another purge is under way", "wait until it has ended")
        with at_once(project.home / _WORK) as free:
            if not free:
                raise MeguError(
                    "a run is under way in this project, and may write what is looked for",
                    "wait for it, or stop it (`megu status`)",
                )
            yield


def while_no_purge(function: F) -> F:
    """Decorate a flow's function: it is refused while a purge of the project is under way, and keeps purges out while it runs."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with working(find()):
            return function(*arguments, **named)

    return run  # type: ignore[return-value]
