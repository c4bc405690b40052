"""The documented command lines of a team's servers, started for real: they answer to the documented names from elsewhere, and to no others."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from new_databases import NAMES
from ports import free_port

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.requests.overview import overview
from megu.requests.request import RequestParams
from megu.servers import addresses

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTED = re.findall(r"^\$ (.+)$", TEXT.partition("<!-- servers -->")[2].partition("<!-- end: servers -->")[0], re.MULTILINE)
#: 127.0.0.2 is this machine too, and not where a server listens that binds to 127.0.0.1.
ELSEWHERE = "127.0.0.2"
LOGIN = "megu:login"
#: Seconds for an answer, on a machine that does other things.
PATIENT_S = 60.0


def settings(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", line))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, databases: Path) -> Iterator[dict[str, int]]:
    """Both, by the documented lines with SQLite in the place of PostgreSQL, a port that is free and a folder of the test's own."""
    folder, ports = tmp_path_factory.mktemp("servers"), {"prefect": free_port(), "mlflow": free_port()}
    for name in NAMES:
        shutil.copyfile(databases / name, folder / name)
    lines = {name: next(line for line in DOCUMENTED if line.startswith(f"{name} server")) for name in ports}
    exported = {key: value for line in DOCUMENTED if line.startswith("export ") for key, value in settings(line).items()}
    own = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
        "PREFECT_HOME": str(folder),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    assert set(own) & set(exported) == {"PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_API_AUTH_STRING"}
    shell = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    shell |= {**exported, **own, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    with ExitStack() as opened:
        for name, line in lines.items():
            command = line.replace({"prefect": "4200", "mlflow": "5000"}[name], str(ports[name]))
            command = re.sub(r"postgresql\+psycopg2://\S+", f"sqlite:///{folder}/mlflow.db", command)
            command = command.replace("/srv/artifacts", str(folder / "artifacts"))
            command += {"prefect": " --no-services", "mlflow": " --workers 1"}[
                name
            ]  # as little as a machine with tests can bear
            log = opened.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command.split(), env=shell, cwd=folder, stdout=log, stderr=log, start_new_session=True)
            opened.callback(_stop, process)
        for name, path in (("prefect", "/api/health"), ("mlflow", "/health")):
            end = time.monotonic() + 240
            while status(ports[name], path) != 200:
                assert time.monotonic() < end, (folder / f"{name}.log").read_text()[-2000:]
                time.sleep(0.3)
        yield ports


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def status(port: int, path: str, host: str = "", body: object = None) -> int:
    """The answer's status, asked at another address of this machine, under a name."""
    try:
        connection = http.client.HTTPConnection(ELSEWHERE, port, timeout=PATIENT_S)
        head = {"Content-Type": "application/json", **({"Host": f"{host}:{port}"} if host else {})}
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), head)
        return connection.getresponse().status
    except OSError:
        return 0


@pytest.mark.slow
def test_the_documented_servers_answer_to_their_names_and_ask_for_a_login(
    servers: dict[str, int], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megu.requests.overview._PATIENCE_S", PATIENT_S)
    search = ("/api/2.0/mlflow/experiments/search", {"max_results": 1})
    assert status(servers["mlflow"], search[0], "mlflow.example.org", search[1]) == 200
    assert status(servers["mlflow"], search[0], "evil.example.org", search[1]) == 403
    assert status(servers["prefect"], "/api/admin/version", "prefect.example.org") == 401

    # What megu says of the same servers: the real ones know of hosts and logins what the pretended ones of other tests do.
    with pytest.raises(MeguError, match="Invalid Host header") as error:
        addresses.mlflow(f"http://{ELSEWHERE}:{servers['mlflow']}", PATIENT_S)
    assert error.value.fix == f"start it with --allowed-hosts {ELSEWHERE}:{servers['mlflow']}"
    api = f"http://{ELSEWHERE}:{servers['prefect']}/api"
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    with pytest.raises(MeguError, match=r"refuses the login \(401\)"):
        addresses.prefect(api, PATIENT_S)
    assert overview(project, "megu", RequestParams()).schedules is None
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", LOGIN)
    assert addresses.prefect(api, PATIENT_S).version.startswith("3.")
    assert overview(project, "megu", RequestParams()).schedules == []


def test_the_deployed_mlflow_takes_itself_for_the_names_that_its_clients_use() -> None:
    composed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    allowed = re.findall(r"--allowed-hosts '([^']+)'", composed["mlflow"]["command"][-1])[0].split(",")
    assert composed["worker"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://") in allowed
    docker = yaml.safe_load((ROOT / "deploy" / "prefect.docker.yaml").read_text())["definitions"]["work_pool"]
    assert docker["job_variables"]["env"]["MLFLOW_TRACKING_URI"].removeprefix("http://") in allowed
    kubernetes = (ROOT / "deploy" / "prefect.kubernetes.yaml").read_text()
    (named,) = set(re.findall(r"MLFLOW_TRACKING_URI: http://(\S+)", kubernetes))
    assert f"--host 0.0.0.0 --allowed-hosts {named}" in (ROOT / "deploy" / "kubernetes.yaml").read_text()
    assert all("--host 0.0.0.0" in line for line in DOCUMENTED if " server " in line)
