"""Ctrl-C, SIGTERM and a closed terminal: the first signal asks a command to stop, with a deadline; a second one ends it at once.

The first raises `Stopped` in the main thread, so unfinished work is undone as after any error. That can take longer than a person
waits (a worker thread that computes, a server that does not answer) or not happen at all (an error that is swallowed). So a separate
thread, which the system notifies of the signal while the main thread is busy, ends the process at the deadline.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

#: Seconds after the signal: the limit for unwinding, and for the process to end.
UNWIND_S, END_S = 1.6, 2.6
#: A parent program passes on a signal that the terminal has already sent: a second signal this soon is a repeat of the first.
_ECHO_S = 0.3
SAYS = "stopped; finished work is saved, and the same command continues from there"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A person or the system asked the command to stop."""


#: Written into the pipe by the main thread and the closing thread, besides signal numbers.
_UNWOUND, _CLOSED = 254, 255


class _Guard:
    """The state of one guarded command."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.raised = False
        self.closing: list[Callable[[], None]] = []
        self.before: dict[int, object] = {}
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; runs in the main thread, as soon as that executes Python code."""
        if not self.raised:
            self.raised, self.number = True, number
            raise Stopped

    def watch(self) -> None:
        """Wait for a signal, then for the end of unwinding and closing, a deadline, or another signal. Runs in a thread."""
        number = self._read(_SIGNALS, None)
        if number is None:
            return
        start = time.monotonic()
        self.number = self.number or number
        if self._read((*_SIGNALS, _UNWOUND), start + UNWIND_S, echo=start + _ECHO_S) not in _SIGNALS:
            threading.Thread(target=self._close, daemon=True).start()
            self._read((*_SIGNALS, _CLOSED), start + END_S, echo=start + _ECHO_S)
        _end_children()
        saying = threading.Thread(target=_say, daemon=True)  # a paused terminal (Ctrl-S) blocks writes
        saying.start()
        saying.join(0.3)
        os._exit(128 + number)

    def unwound(self) -> None:
        """Leave the rest to the other thread, which ends the process."""
        os.write(self.writing, bytes([_UNWOUND]))
        time.sleep(2 * END_S)

    def _read(self, wanted: Sequence[int], deadline: float | None, echo: float = 0.0) -> int | None:
        """Return the next of these bytes; None at the deadline or when the pipe is closed. A signal before ``echo`` does not count."""
        while select.select([self.reading], [], [], deadline and max(0.0, deadline - time.monotonic()))[0]:
            content = os.read(self.reading, 1)
            if not content:
                return None
            if content[0] in wanted and not (content[0] in _SIGNALS and time.monotonic() < echo):
                return content[0]
        return None

    def _close(self) -> None:
        for close in reversed(self.closing):
            with contextlib.suppress(Exception):
                close()
        os.write(self.writing, bytes([_CLOSED]))


#: The guard of the command that this process runs, if any.
_active: list[_Guard] = []


@contextmanager
def guarding() -> Iterator[None]:
    """Handle signals this way for the block: in the main thread; ignored signals (``nohup``, a background process) stay ignored.

    A block that ends after a signal, in whatever way, ends the process with 128 + the signal's number.
    """
    if _active or threading.current_thread() is not threading.main_thread():
        yield
        return
    guard = _Guard()
    _active.append(guard)
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            guard.before[int(number)] = signal.signal(number, guard.handle)
    woken = signal.set_wakeup_fd(guard.writing, warn_on_full_buffer=False)
    threading.Thread(target=guard.watch, name="megu-interrupt", daemon=True).start()
    try:
        yield
    except BaseException:
        if guard.number is None:
            raise
    finally:
        if guard.number is not None:
            guard.unwound()
        signal.set_wakeup_fd(woken)
        for before, handler in guard.before.items():
            signal.signal(before, handler)  # type: ignore[arg-type]
        os.close(guard.writing)
        _active.remove(guard)


def received() -> bool:
    """Whether this command was asked to stop."""
    return any(guard.number is not None for guard in _active)


def on_stop(close: Callable[[], None]) -> None:
    """Have ``close`` called when the command is stopped, after unwinding or at the deadline, perhaps in another thread. It may be called
    when there is nothing left to close, may fail, and is not waited for after the deadline.
    """
    for guard in _active:
        guard.closing.append(close)


@contextmanager
def handling() -> Iterator[None]:
    """Handle SIGTERM as `guarding` does for the block, though something else (Prefect, around a flow) has taken it over."""
    if not _active or signal.SIGTERM not in _active[0].before or threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs = signal.signal(signal.SIGTERM, _active[0].handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, theirs)


def _say() -> None:
    # Wipe what a progress bar has drawn, and show the cursor that it has hidden.
    clean = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""
    with contextlib.suppress(OSError):
        os.write(2, clean + f"megu: {SAYS}\n".encode())


def _end_children() -> None:
    """End the processes that this one has started and that still run: nobody waits for them any more."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()


__all__ = ["Stopped", "guarding", "handling", "on_stop", "received"]
