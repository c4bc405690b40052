"""A Prefect server and an MLflow server for the project's own folder, on this machine only.

They are started detached, each as the leader of its own session, and recorded in ``<home>/services.json``; only servers
started here are ever stopped. Imports stay light: `endpoints` is called at the start of every command.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from megu.core.errors import MeguError
from megu.core.progress import track

HOST = "127.0.0.1"
PORTS = {"prefect": 4200, "mlflow": 5000}
TITLES = {"prefect": "Prefect", "mlflow": "MLflow"}
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
_START_S, _STOP_S = 180.0, 15.0
#: Seconds for which the port of a killed server may still look taken.
_RELEASE_S = 10.0
#: Number of checks: a server that was just killed can look alive; after a restart it is checked once more.
_LOOKS = 3
#: Tolerance in seconds: a process's start is counted from the boot, whose recorded time moves when the clock is set.
_CLOCK_S = 5.0


@dataclass(frozen=True)
class Service:
    """One server. url: its page. running: whether its process is alive; pid is None when not. port: the one it has, or would have."""

    name: str
    url: str
    running: bool
    pid: int | None
    port: int


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the servers that accept connections now; None for one that does not."""

    prefect_api: str | None
    prefect_ui: str | None
    mlflow: str | None


def endpoints(home: Path) -> Endpoints:
    """Return where the project's servers answer. Checks two processes and two loopback ports: a millisecond."""
    live = {service.name: service.url for service in status(home) if service.running and _accepts(service.port)}
    prefect = live.get("prefect")
    return Endpoints(f"{prefect}/api" if prefect else None, prefect, live.get("mlflow"))


def status(home: Path) -> list[Service]:
    """Return both servers, running or not; changes nothing."""
    remembered = _read(home)
    found = []
    for name, default in PORTS.items():
        entry = remembered.get(name)
        process = _leader(entry) if entry else None
        port = entry["port"] if entry and process else default
        found.append(Service(name, f"http://{HOST}:{port}", process is not None, process.pid if process else None, port))
    return found


def up(home: Path, *, prefect_port: int = PORTS["prefect"], mlflow_port: int = PORTS["mlflow"]) -> list[Service]:
    """Start what is not running yet, wait until both answer, and return both. A running server keeps its port.

    Raises `MeguError` when a port is taken or a server does not come up; what this call started is stopped again.
    """
    home = home.resolve()
    wanted = {"prefect": prefect_port, "mlflow": mlflow_port}
    if not _read(home):
        _refuse_taken_ports(wanted, list(PORTS))  # before anything is written
    started: list[str] = []
    try:
        for _ in range(_LOOKS):
            _start_missing(home, wanted, started)
            # One of the others may have been dying while it was checked: it counts as missing now.
            if all(_wait(home, service, own=service.name in started) for service in status(home)):
                return status(home)
        raise MeguError("a server dies every time it is started", f"read {home / 'logs'}")
    except BaseException:
        with _lock(home):
            _kill(home, started)
        raise


def _start_missing(home: Path, wanted: Mapping[str, int], started: list[str]) -> None:
    """Start what is not running; add its name to ``started`` first."""
    # Locked until they are recorded, not until they answer: `down` need not wait for a slow start.
    with _lock(home):
        missing = [service.name for service in status(home) if not service.running]
        died = [name for name in missing if name in _read(home)]
        _kill(home, missing)
        _refuse_taken_ports(wanted, missing, died)
        for name in missing:
            started.append(name)
            _start(home, name, wanted[name])


def down(home: Path) -> list[str]:
    """Stop the servers that were started here, with all their processes; return the names of those that were running."""
    home = home.resolve()
    if not _read(home):
        return []
    with _lock(home):
        return _kill(home, list(PORTS))


# --- starting ----------------------------------------------------------------------------------------------------------------


def _start(home: Path, name: str, port: int) -> None:
    from megu.servers import databases as creation

    (home / "logs").mkdir(parents=True, exist_ok=True)
    creation.ensure_of_server(home, name)
    with _log(home, name).open("wb") as log:
        process = subprocess.Popen(
            _command(home, name, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=home,
            env=_environment(home, name, port),
        )
    try:
        entry = {"pid": process.pid, "port": port, "create_time": psutil.Process(process.pid).create_time()}
        _write(home, {**_read(home), name: entry})
    except BaseException:
        process.kill()  # it cannot be recorded (a full disk), so it must not stay
        process.wait()
        raise


def _command(home: Path, name: str, port: int) -> list[str]:
    if name == "prefect":
        return [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--host", HOST, "--port", str(port)]
    artifacts = (home / "mlartifacts").as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
        # Experiments created through the server and through the database store their files in the same place.
        *("--artifacts-destination", artifacts, "--default-artifact-root", artifacts),
    ]


def _environment(home: Path, name: str, port: int) -> dict[str, str]:
    # Nothing the shell says about other servers (addresses, databases, logins) may reach these. The key for MLflow's webhook
    # secrets, and the addresses that webhooks may go to, can only be set here.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "MLFLOW_")) or key.startswith("MLFLOW_WEBHOOK_")
    }
    environment.update(DO_NOT_TRACK="1", PYTHONUNBUFFERED="1", OMP_NUM_THREADS="1", NO_PROXY=HOST, no_proxy=HOST)
    if name == "prefect":
        environment.update(
            PREFECT_HOME=str(home / "prefect"),
            # The page asks the server for the address of its API; the server must be told if its port is not 4200.
            PREFECT_API_URL=f"http://{HOST}:{port}/api",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            # In memory, Prefect's default, leases die with a killed server while their slots stay taken in its database.
            PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=LEASES,
        )
    else:
        # Job execution is for language-model evaluation: four more processes that nothing here uses.
        environment.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    return environment


def _wait(home: Path, service: Service, *, own: bool) -> bool:
    """Wait until the server answers. One that another `up` started (``own`` false) may have died by itself: then return False.

    Raises `MeguError` when an own one dies, another command stopped it, or it does not answer.
    """
    title, log = TITLES[service.name], _log(home, service.name)
    end = time.monotonic() + _START_S
    with track(f"start {title}"):
        while not _healthy(service):
            if not _runs(home, service):
                if not own and service.name in _read(home):
                    return False
                said = last_line(log) if own else "stopped by another command"
                raise MeguError(f"the {title} server did not start: {said}", f"read {log}")
            if time.monotonic() > end:
                raise MeguError(f"the {title} server did not answer in {_START_S:.0f} s: {last_line(log)}", f"read {log}")
            time.sleep(0.2)
    # The worker of a killed server can answer a moment longer than the server itself.
    return _runs(home, service)


def _runs(home: Path, service: Service) -> bool:
    return any(now.name == service.name and now.running for now in status(home))


def _healthy(service: Service) -> bool:
    import urllib.request  # 50 ms that `endpoints` does not need

    # A proxy set in the shell cannot reach this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{service.url}{_HEALTH[service.name]}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def last_line(log: Path) -> str:
    """Return the last non-empty line of a server's log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it left no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _log(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


# --- ports -------------------------------------------------------------------------------------------------------------------


def _refuse_taken_ports(wanted: Mapping[str, int], names: Sequence[str], died: Sequence[str] = ()) -> None:
    """Raise `MeguError` for a port that is taken; wait a moment for the port of a server that ``died``."""
    if len({wanted[name] for name in names}) < len(names):
        raise MeguError(f"port {wanted[names[0]]} is given to both servers", f"choose another with --{names[1]}-port")
    for name in names:
        _refuse_taken_port(name, wanted[name], patience=_RELEASE_S if name in died else 0.0)


def _refuse_taken_port(name: str, port: int, *, patience: float) -> None:
    fix = f"choose another port with --{name}-port, or stop what uses it"
    end = time.monotonic() + patience
    while True:
        try:
            return _probe(port)
        except PermissionError:
            raise MeguError(f"port {port} for {TITLES[name]} is reserved for the system", fix) from None
        except OverflowError:
            raise MeguError(f"{port} is not a port", f"choose one between 1 and 65535 with --{name}-port") from None
        except OSError:
            if time.monotonic() > end:
                raise MeguError(f"port {port} for {TITLES[name]} is in use by {_user_of(port)}", fix) from None
        time.sleep(0.05)


def _probe(port: int) -> None:
    with socket.socket() as probe:
        # Bind as the servers do: connections of a server that has just stopped do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def _user_of(port: int) -> str:
    """Return who listens on a port, as far as the system reveals it."""
    try:
        for connection in psutil.net_connections(kind="inet"):
            if connection.laddr and connection.laddr.port == port and connection.pid and not connection.raddr:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass  # not permitted to look; the port is taken all the same
    return "another program"


def _accepts(port: int) -> bool:
    """Whether connections are not refused: a server with a full queue is busy, not absent."""
    with socket.socket() as probe:
        probe.settimeout(0.05)
        return probe.connect_ex((HOST, port)) != errno.ECONNREFUSED


# --- processes ---------------------------------------------------------------------------------------------------------------


def _kill(home: Path, names: Sequence[str]) -> list[str]:
    """Stop the servers recorded under ``names`` and forget them; return the names of those that were running."""
    remembered = _read(home)
    members = {name: _members(remembered[name]) for name in names if name in remembered}
    processes = [process for group in members.values() for process in group]
    _signal(processes, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=_STOP_S)
    # A worker that was started while the others died counts as well.
    alive += [process for name in members for process in _members(remembered[name]) if process not in alive]
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=_STOP_S)
    if members:
        _write(home, {name: entry for name, entry in remembered.items() if name not in members})
    return [name for name, group in members.items() if group]


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)  # psutil refuses an id that has been reused


def _leader(entry: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process, if it is still the one that was started: ids are reused, so its start time is compared too."""
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["create_time"]) < _CLOCK_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OverflowError, ValueError):
        return None


def _members(entry: Mapping[str, Any]) -> list[psutil.Process]:
    """Return every process of the server's session, even if its leader has died.

    The system reuses the id of a session only when the session has no members left, so those of a dead leader are still
    ours, unless the machine was rebooted or the id belongs to a living process of someone else.
    """
    leader = _leader(entry)
    if leader is None and (psutil.boot_time() > entry["create_time"] + _CLOCK_S or _lives(entry["pid"])):
        return []
    found = []
    for process in psutil.process_iter():
        try:
            ours = os.getsid(process.pid) == entry["pid"] and process.create_time() > entry["create_time"] - _CLOCK_S
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OverflowError, ValueError):
        return False


# --- records -----------------------------------------------------------------------------------------------------------------


def _read(home: Path) -> dict[str, dict[str, Any]]:
    """Return what was started here; invalid entries (a damaged file, one of another version) are ignored."""
    try:
        value = json.loads((home / "services.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: entry for name, entry in value.items() if name in PORTS and _sensible(entry)}


def _sensible(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    whole = all(isinstance(entry.get(key), int) for key in ("pid", "port")) and isinstance(entry.get("create_time"), float)
    return whole and entry["pid"] > 0 and 0 < entry["port"] < 65536


def _write(home: Path, value: Mapping[str, Any]) -> None:
    from megu.core.files.store import writing

    with writing(home / "services.json") as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _lock(home: Path) -> Any:
    from megu.core.files.locks import file_lock

    return file_lock(home / "services.lock")
