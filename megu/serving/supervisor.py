"""A reference implementation of reloading: ``mlflow models serve`` with the champion, restarted when the alias moves.

It is the simplest correct one: one server at a time, so that no two versions ever answer, and some seconds of refused connections at each
move. Where those cost too much, reload a server of your own from the webhook, and let `megu.serving.check` check which version it has.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.core.processes import tethered
from megu.core.project import Project
from megu.lineage.promoted.champions import CHAMPION

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds for a server to end cleanly, and the pauses before it is restarted when it ended by itself.
STOP_S, PAUSES_S = 10.0, (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)

Say = Callable[[str], None]


def serve(project: Project, name: str, host: str, port: int, every: float, say: Say) -> None:
    """Serve the champion of a registered model until this process is stopped; the server ends with it, however it ends.

    every: seconds between two checks of the alias. say: called with what happens, one line each.

    Raises `MeguError` when the port is taken.
    """
    refuse_taken(host, port)
    version, trouble, failures = "", "", 0
    with _one_server() as server:
        while True:
            now, why = champion(project, name)
            if why != trouble:
                say(why or f"{CHAMPION} can be looked up again")
                trouble = why
            if now and now != version:
                server.stop()
                server.start(command(name, now, host, port), environment(project))
                say(
                    f"serving models:/{name}/{now} at http://{host}:{port}{f' (before it version {version})' if version else ''}"
                )
                version, failures = now, 0
            elif version and (code := server.ended()) is not None:
                pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
                failures += 1
                say(f"the server of models:/{name}/{version} ended ({code}) and is started again in {pause:.0f} s")
                time.sleep(pause)
                version = ""
                continue
            time.sleep(every)


def champion(project: Project, name: str) -> tuple[str, str]:
    """Return the version to serve, and why there is none or it is unknown; one of them is empty."""
    from megu.tracking import lineage

    try:
        version = lineage.aliases(lineage.reader(project.home), name).get(CHAMPION, "")
    except MeguError as error:
        return "", error.what
    return version, "" if version else f"no version of {name} is the {CHAMPION} yet"


def command(name: str, version: str, host: str, port: int) -> list[str]:
    """Return the command to start: MLflow's own server, in this environment, tied to this process by its standard input."""
    model = ("-m", f"models:/{name}/{version}", "--env-manager", "local")
    return [
        *(sys.executable, str(Path(tethered.__file__)), "mlflow", "models", "serve"),
        *(*model, "--host", host, "--port", str(port)),
    ]


def environment(project: Project) -> Mapping[str, str]:
    """Return this process' environment, with the registry's address and the programs of this Python's environment, which MLflow looks up by
    name."""
    from megu.tracking import uri

    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "MLFLOW_TRACKING_URI": uri(project.home),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PYTHONDONTWRITEBYTECODE": "1",  # the code that runs lies among the files of the version, which are hashed
    }


def refuse_taken(host: str, port: int) -> None:
    """Raise `MeguError` where nothing can listen."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise MeguError(f"nothing can listen at {host}:{port} ({why})", "choose another with --port") from None


class _Server:
    """The single server that runs, or none."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        # A group of its own: Ctrl-C is this process's, which stops the server.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(environment), start_new_session=True)

    def ended(self) -> int | None:
        """Return its exit code once it has ended."""
        return None if self.process is None else self.process.poll()

    def stop(self) -> None:
        """End it with everything that it started; return when none of it listens any more."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def _signal(self, number: int) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


@contextmanager
def _one_server() -> Iterator[_Server]:
    server = _Server()
    try:
        yield server
    finally:
        server.stop()
