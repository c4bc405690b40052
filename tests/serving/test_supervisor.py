"""A server that is started again when the champion moves, and ends with whoever started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ports import HOST, free_port

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.serving import supervisor

#: Stands in for MLflow's server: says which version it has to whoever connects, and ends when its standard input does, or at "crash".
PROGRAM = """
import os, socket, sys, threading
def follow():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=follow, daemon=True).start()
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    taken, _ = server.accept()
    taken.sendall(sys.argv[2].encode())
    crash = taken.recv(5) == b"crash"
    taken.close()
    if crash:
        os._exit(3)
"""


class Enough(Exception):
    pass


def ask(port: int, send: bytes = b"") -> str:
    """What the server of a port says, waited for."""
    end = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection((HOST, port), 1) as connected:
                found = connected.recv(10).decode()
                connected.sendall(send or b"-")
                return found
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_it_follows_the_champion_restarts_what_ends_and_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, lines, seen = free_port(), list[str](), list[str]()
    steps: list[Callable[[], object]] = [
        lambda: state.update(now="1"),
        lambda: seen.append(ask(port)),
        lambda: state.update(now="", why="MLflow is away"),
        lambda: seen.append(ask(port)),
        lambda: state.update(now="2", why=""),
        lambda: seen.append(ask(port, b"crash")),
        lambda: time.sleep(0.2),
        lambda: seen.append(ask(port)),
    ]
    state = {"now": "", "why": "no version of megu is the champion yet"}

    def champion(here: Project, name: str) -> tuple[str, str]:
        return state["now"], "" if state["now"] else state["why"]

    def sleep(seconds: float) -> None:
        if seconds == 7.5:  # between two looks
            if not steps:
                raise Enough
            steps.pop(0)()

    monkeypatch.setattr(supervisor, "champion", champion)
    monkeypatch.setattr(
        supervisor, "command", lambda name, version, host, at: [sys.executable, "-c", PROGRAM, str(at), version]
    )
    monkeypatch.setattr(supervisor, "environment", lambda here: {})
    monkeypatch.setattr(supervisor, "time", type("Clock", (), {"sleep": staticmethod(sleep)}))
    with pytest.raises(Enough):
        supervisor.serve(project, "megu", HOST, port, 7.5, lines.append)
    assert seen == ["1", "1", "2", "2"]
    where = f"at http://{HOST}:{port}"
    assert lines == [
        "no version of megu is the champion yet",
        "champion can be looked up again",
        f"serving models:/megu/1 {where}",
        "MLflow is away",
        "champion can be looked up again",
        f"serving models:/megu/2 {where} (before it version 1)",
        "the server of models:/megu/2 ended (3) and is started again in 1 s",
        f"serving models:/megu/2 {where}",
    ]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((HOST, port), 1)


def test_a_server_ends_with_its_supervisor_however_that_ends(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "p.py").write_text(PROGRAM)
    start = f"""
import sys, time
from megu.serving.supervisor import _Server
server = _Server()
server.start([sys.executable, {str(tmp_path / "p.py")!r}, "{port}", "1"], {{}})
print("started", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        assert ask(port) == "1"
        parent.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), 1).close()
            time.sleep(0.05)
        except OSError:
            return
    pytest.fail("the server is still there")


def test_a_port_that_is_taken_is_refused_at_once(project: Project) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MeguError, match=rf"nothing can listen at {HOST}:{port} \(Address already in use\)"):
            supervisor.serve(project, "megu", HOST, port, 1.0, print)


def test_what_is_started_is_mlflows_own_server_in_this_environment(project: Project) -> None:
    command = supervisor.command("megu", "3", HOST, 5001)
    assert command[2:] == [
        *("mlflow", "models", "serve", "-m", "models:/megu/3", "--env-manager", "local"),
        *("--host", HOST, "--port", "5001"),
    ]
    found = supervisor.environment(project)
    assert found["PATH"].startswith(str(Path(sys.executable).parent))
    assert found["MLFLOW_TRACKING_URI"].endswith(".megu/mlflow.db")


def test_a_project_without_a_champion_says_so(project: Project) -> None:
    assert supervisor.champion(project, "megu") == ("", "there is no MLflow database here")
