"""The servers of a project, for real: processes, ports, and what is left when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import free_port, free_ports

from megu.core.errors import MeguError
from megu.servers import databases, services
from megu.servers.services import Endpoints

#: A server that answers health checks, with a worker of its own that ignores SIGTERM.
SERVER = """
import http.server, signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"])
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    # A blank and a percent sign: the path goes into URIs and command lines.
    home = tmp_path / "a project 100%" / ".megu"
    yield home
    services.down(home)


@pytest.fixture
def small_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs in the place of Prefect and MLflow, which take ten seconds each; all else is real."""
    monkeypatch.setattr(services, "_command", lambda home, name, port: [sys.executable, "-c", SERVER, str(port)])
    monkeypatch.setattr(services, "_STOP_S", 0.3)


def kill(pid: int) -> None:
    """A child of ours, as nobody could refuse; it is gone when this returns."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def session(pid: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except OSError:
            continue
    return found


def remembered(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "services.json").read_text()))


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_both_servers_show_what_was_tracked_without_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a shell says of a team's servers must not reach these.
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///elsewhere.db")
    import numpy as np
    from mlflow import MlflowClient

    ports = free_ports()
    databases.ensure(databases.MLFLOW, home / "mlflow.db")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.create_experiment("direct", (home / "mlartifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "Af", 0.5)
    client.log_text(run, "<p>report</p>", "report.html")
    client.log_image(run, np.zeros((4, 4, 3), np.uint8), "figures/noise.png")

    started = services.up(home, **ports)
    assert [(service.name, service.port, service.running) for service in started] == [
        ("prefect", ports["prefect_port"], True),
        ("mlflow", ports["mlflow_port"], True),
    ]
    prefect, mlflow = (service.url for service in started)
    assert services.endpoints(home) == Endpoints(f"{prefect}/api", prefect, mlflow)
    assert services.up(home) == started

    assert ask(f"{prefect}/ui-settings")["api_url"] == f"{prefect}/api"
    assert ask(f"{prefect}/api/admin/settings")["server"]["analytics_enabled"] is False
    # Leases that outlive a kill of the server: in memory they would be lost, and what they hold would stay taken.
    assert ask(f"{prefect}/api/admin/settings")["server"]["concurrency"]["lease_storage"].endswith("filesystem")
    assert (home / "prefect" / "prefect.db").exists()
    assert ask(f"{mlflow}/api/2.0/mlflow/runs/get?run_id={run}")["run"]["data"]["metrics"][0]["value"] == 0.5
    files = ask(f"{mlflow}/api/2.0/mlflow/artifacts/list?run_id={run}")["files"]
    assert {file["path"] for file in files} == {"report.html", "figures"}
    with urllib.request.urlopen(f"{mlflow}/get-artifact?run_id={run}&path=figures/noise.png", timeout=30) as answer:
        assert answer.read().startswith(b"\x89PNG")
    made_there = MlflowClient(mlflow).create_experiment("through the server")
    assert MlflowClient(mlflow).get_experiment(made_there).artifact_location.startswith((home / "mlartifacts").as_uri())

    for service in started:
        listening = [entry for entry in psutil.net_connections("inet") if entry.laddr and entry.laddr.port == service.port]
        assert {entry.laddr.ip for entry in listening if entry.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    assert services.down(home) == ["prefect", "mlflow"]
    assert not any(session(service.pid or 0) for service in started)
    assert not any(service.running for service in services.status(home))


@pytest.mark.usefixtures("small_servers")
def test_down_stops_every_process_and_leaves_strangers_alone(home: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = services.up(home, **free_ports())
        pids = [service.pid or 0 for service in started]
        assert all(len(session(pid)) == 2 for pid in pids)
        kill(pids[0])  # a leader dies, its worker stays
        assert [service.running for service in services.status(home)] == [False, True]
        assert services.down(home) == ["prefect", "mlflow"]
        assert [session(pid) for pid in pids] == [[], []]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.usefixtures("small_servers")
def test_one_that_runs_is_kept_and_the_other_started_again(home: Path) -> None:
    ports = free_ports()
    prefect, mlflow = services.up(home, **ports)
    kill(mlflow.pid or 0)
    again = services.up(home, prefect_port=free_port(), mlflow_port=free_port())
    assert again[0] == prefect
    assert again[1].running
    assert again[1].pid != mlflow.pid
    assert session(mlflow.pid or 0) == []


@pytest.mark.usefixtures("small_servers")
def test_the_port_of_a_killed_server_is_waited_for(home: Path) -> None:
    ports = free_ports()
    prefect, _ = services.up(home, **ports)
    kill(prefect.pid or 0)
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", ports["prefect_port"]))
    taken.listen()
    release = threading.Timer(1.0, taken.close)
    release.start()
    again = services.up(home, **ports)[0]
    assert not release.is_alive(), "it was taken for a second"
    assert (again.running, again.port) == (True, ports["prefect_port"])


@pytest.mark.usefixtures("small_servers")
def test_one_that_dies_while_it_is_looked_at_is_started_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports, healthy = free_ports(), services._healthy
    _, mlflow = services.up(home, **ports)

    def dying(service: services.Service) -> bool:
        if service == mlflow:
            kill(mlflow.pid or 0)
            monkeypatch.setattr(services, "_healthy", healthy)
            return False
        return healthy(service)

    monkeypatch.setattr(services, "_healthy", dying)
    again = services.up(home, **ports)[1]
    assert again.running
    assert again.pid != mlflow.pid
    assert services._healthy(again)


@pytest.mark.usefixtures("small_servers")
def test_one_that_another_command_stops_meanwhile_is_not_started_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services.up(home, **free_ports())

    def stopped(service: services.Service) -> bool:
        services.down(home)
        return False

    monkeypatch.setattr(services, "_healthy", stopped)
    with pytest.raises(MeguError, match="stopped by another command"):
        services.up(home)
    assert remembered(home) == {}


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
@pytest.mark.usefixtures("small_servers")
def test_a_port_in_use_names_it_its_user_and_the_flag(home: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MeguError) as caught:
            services.up(home, **{**free_ports(), f"{name}_port": port})
    assert f"port {port}" in caught.value.what
    assert f"(process {os.getpid()})" in caught.value.what
    assert f"--{name}-port" in caught.value.fix
    assert not home.exists()


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_of_other_servers_nothing_is_passed_on_but_how_webhooks_are_sent(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "of the team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of another server")
    monkeypatch.setenv("PREFECT_API_KEY", "of another server")
    passed = services._environment(home, name, 4200)
    assert passed["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] == "of the team"
    assert "of another server" not in passed.values()


def test_one_port_for_both_is_refused(home: Path) -> None:
    with pytest.raises(MeguError, match="both"):
        services.up(home, prefect_port=4999, mlflow_port=4999)


def test_a_server_that_dies_is_quoted_and_takes_the_other_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(home: Path, name: str, port: int) -> list[str]:
        return [
            sys.executable,
            "-c",
            SERVER if name == "prefect" else "raise SystemExit('database is broken\\n\\n')",
            str(port),
        ]

    monkeypatch.setattr(services, "_command", command)
    monkeypatch.setattr(services, "_STOP_S", 0.3)
    with pytest.raises(MeguError, match=r"MLflow server did not start: database is broken") as caught:
        services.up(home, **free_ports())
    assert "mlflow.log" in caught.value.fix
    assert remembered(home) == {}


def test_a_server_that_never_answers_is_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_command", lambda home, name, port: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(services, "_START_S", 0.5)
    with pytest.raises(MeguError, match="did not answer"):
        services.up(home, **free_ports())
    assert remembered(home) == {}


@pytest.mark.usefixtures("small_servers")
def test_interrupting_a_start_leaves_nothing_running(home: Path) -> None:
    # The health check never passes, so the program is still waiting when it is interrupted.
    program = f"""
import sys
from pathlib import Path
from megu.servers import databases, services
databases.ensure_of_server = lambda home, name: None  # ten seconds, for servers that have none
services._command = lambda home, name, port: [sys.executable, "-c", {SERVER!r}, str(port)]
services._healthy = lambda service: False
services._STOP_S = 0.3
services.up(Path(sys.argv[1]), prefect_port=int(sys.argv[2]), mlflow_port=int(sys.argv[3]))
"""
    ports = [str(port) for port in free_ports().values()]
    code = Path(services.__file__).parents[2]
    starting = subprocess.Popen([sys.executable, "-c", program, str(home), *ports], cwd=code, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 100
    while not all(len(session(service.pid or 0)) == 2 for service in services.status(home)) and time.monotonic() < end:
        time.sleep(0.05)
    pids = [service.pid or 0 for service in services.status(home)]
    assert all(pids)
    starting.send_signal(signal.SIGINT)
    starting.wait(timeout=100)
    assert [session(pid) for pid in pids] == [[], []]
    assert remembered(home) == {}


def test_what_cannot_be_remembered_is_not_left_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def spy(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **named))
        return started[-1]

    def full(home: Path, value: Any) -> None:
        raise MeguError("the disk is full")

    monkeypatch.setattr(services, "_command", lambda home, name, port: [sys.executable, "-c", SERVER, str(port)])
    monkeypatch.setattr(subprocess, "Popen", spy)
    with monkeypatch.context() as within:
        within.setattr(services, "_write", full)
        with pytest.raises(MeguError, match="full"):
            services.up(home, **free_ports())
    assert [process.returncode is not None for process in started] == [True]


def test_a_process_that_took_over_an_id_is_not_ours(home: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        home.mkdir(parents=True)
        born = psutil.Process(stranger.pid).create_time()
        entry = {"pid": stranger.pid, "port": 4201, "create_time": born - 3600}
        (home / "services.json").write_text(json.dumps({"prefect": entry}))
        assert [(service.running, service.port) for service in services.status(home)] == [(False, 4200), (False, 5000)]
        assert services.down(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"prefect": 3}',
        '{"prefect": {"pid": "1"}}',
        '{"prefect": {"pid": -1, "port": 4200, "create_time": 1.0}, "other": {}}',
        '{"mlflow": {"pid": 99999999999, "port": 5000, "create_time": 1.0}}',
        '{"mlflow": {"pid": 4194303, "port": 5000, "create_time": 1.0}}',
    ],
)
def test_a_stale_or_damaged_memory_is_as_good_as_none(home: Path, text: str) -> None:
    home.mkdir(parents=True)
    (home / "services.json").write_text(text)
    assert not any(service.running for service in services.status(home))
    assert services.endpoints(home) == Endpoints(None, None, None)
    assert services.down(home) == []


def test_nothing_was_started(home: Path) -> None:
    assert services.down(home) == []
    assert [service.url for service in services.status(home)] == ["http://127.0.0.1:4200", "http://127.0.0.1:5000"]
    assert not home.exists()


@pytest.mark.usefixtures("small_servers")
def test_endpoints_take_no_time(home: Path) -> None:
    services.up(home, **free_ports())
    start = time.perf_counter()
    for _ in range(10):
        assert services.endpoints(home).mlflow
    assert time.perf_counter() - start < 1.0
    program = "import sys, megu.servers.services\nassert not {'mlflow', 'prefect', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(services.__file__).parents[2])
