"""Prefect's temporary server, which a flow starts when no other is there: apart from the terminal, and tied to the flow.

As Prefect starts it, it belongs to the terminal's foreground: Ctrl-C ends it together with the flow, which then cannot say that it was
stopped, and tries for minutes. And a flow that is killed leaves it behind, as a process without a parent. Here it has a session of its own, and
a pipe whose other end only the flow holds: when that is closed, by whatever end of the flow, it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.settings import PREFECT_API_URL

from megu.core.processes import tethered


class _Tethered(subprocess.Popen[bytes]):
    """A Python module as a process: ``[python, "-m", module, …]``."""

    def __init__(self, args: list[str], **named: Any) -> None:
        assert args[:2] == [sys.executable, "-m"], args
        own = [sys.executable, tethered.__file__, *args[2:]]
        # No run needs a block type, and to register them all takes a second of each start; the server of ``megu up`` does.
        environment = {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false", **(named.pop("env", None) or os.environ)}
        super().__init__(own, stdin=subprocess.PIPE, start_new_session=True, env=environment, **named)


def tether() -> None:
    """Have Prefect start its temporary server so, in this process; nothing is changed where a server is named."""
    if PREFECT_API_URL.value():
        return
    from prefect.server.api import server  # seconds, which Prefect would spend now as well

    vars(server)["subprocess"] = types.SimpleNamespace(**{**vars(subprocess), "Popen": _Tethered})


@contextmanager
def starting() -> Iterator[None]:
    """Have Prefect start its temporary server beside the block, and wait for both; nothing is started where a server is named.

    What keeps it from starting is left to the flow, which tries again and says so.
    """
    if PREFECT_API_URL.value():
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    def start() -> None:
        with contextlib.suppress(Exception):
            SubprocessASGIServer().start()

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    yield
    thread.join()


def running() -> bool:
    """Whether this process has started one that still runs."""
    return any(found.poll() is None for found in _processes())


def end(patience: float) -> None:
    """End it: in an orderly way within ``patience`` seconds, else at once, which SQLite's journal forgives."""
    for process in _processes():
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()


def _processes() -> list[subprocess.Popen[Any]]:
    module = sys.modules.get("prefect.server.api.server")
    servers = module.SubprocessASGIServer._instances.values() if module else ()
    return [server.server_process for server in servers if server.server_process is not None]
