"""Progress of long work, reported to a listener.

Library code says ``with track("train", total=n, unit="images") as advance: ... advance(256)``; without a listener that costs
nothing. The command line listens with a progress bar, tests with a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

Advance = Callable[[int], None]


class Listener(Protocol):
    """What receives progress. ``start`` returns the function that is called with each amount done."""

    def start(self, label: str, total: int | None, unit: str) -> Advance: ...

    def stop(self, label: str) -> None: ...


_listener: ContextVar[Listener | None] = ContextVar("megu_progress", default=None)


@contextmanager
def track(label: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
    """Report work of ``total`` units (None: unknown) under ``label``; yields the function to call with each amount done."""
    listener = _listener.get()
    if listener is None:
        yield lambda amount: None
        return
    advance = listener.start(label, total, unit)
    try:
        yield advance
    finally:
        listener.stop(label)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of everything inside this block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class StageListener(Protocol):
    """What receives the stages of a run as they start and end, and occasional notes."""

    def stage_starts(self, name: str, title: str) -> None: ...

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None: ...

    def note(self, text: str) -> None: ...


class _Silent:
    def stage_starts(self, name: str, title: str) -> None: ...

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None: ...

    def note(self, text: str) -> None: ...


_stage_listener: ContextVar[StageListener] = ContextVar("megu_stages", default=_Silent())  # noqa: B039 - it holds nothing


def stages() -> StageListener:
    """Return the current listener to stages; a silent one when nobody listens."""
    return _stage_listener.get()


@contextmanager
def watching(listener: StageListener) -> Iterator[None]:
    """Tell ``listener`` of every stage that runs inside this block."""
    token = _stage_listener.set(listener)
    try:
        yield
    finally:
        _stage_listener.reset(token)


def duration(seconds: float) -> str:
    """Format seconds for a person."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
