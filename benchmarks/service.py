"""The service from end to end against real servers: a schedule fires, a worker runs it, a request goes from received to promoted with an
approval given through Prefect's API. With --kill something is killed with SIGKILL while the request is in the state --at, and started
again; the request must end in the same state, once.

    python benchmarks/service.py DATA_FOLDER [--kill flow|worker|prefect|mlflow] [--at processing]

DATA_FOLDER: ``data/fashion-mnist``; a slice of it is used. Takes a minute or two of one core, so it is not part of CI.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import psutil  # noqa: E402
from lineage_fixtures import SECRETS, make_project  # noqa: E402

from megu import services  # noqa: E402
from megu.data import arrays  # noqa: E402
from megu.lineage.keys import PASSPHRASE  # noqa: E402
from megu.requests.inbox import Inbox  # noqa: E402
from megu.requests.request import Request  # noqa: E402

#: A model trained for a second passes no real gate.
LENIENT = [f"gate.{name}=100" for name in ("forget_margin", "retain_drop", "class_drop", "mia_band")]
PATIENCE_S = 3600.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((services.HOST, 0))
        return int(probe.getsockname()[1])


class Service:
    """A project with its servers and a worker; everything in the project's folder, on loopback."""

    def __init__(self, root: Path, data: Path) -> None:
        self.project = make_project(root, arrays.load(data))
        for name in ("megu", "tasks", "flows"):
            (root / name).symlink_to(REPOSITORY / name)
        text = (REPOSITORY / "prefect.yaml").read_text().replace('cron: "0 3 * * *"\n        timezone: UTC', "interval: 20")
        (root / "prefect.yaml").write_text(text.replace("settings: []", f"settings: {json.dumps(LENIENT)}"))
        self.ports = {"prefect_port": free_port(), "mlflow_port": free_port()}
        self.log = (root / "worker.log").open("ab")
        self.environment = {
            **os.environ,
            PASSPHRASE: SECRETS[PASSPHRASE],
            "MEGU_PROJECT": str(root),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
            "PREFECT_API_URL": f"http://{services.HOST}:{self.ports['prefect_port']}/api",
            "MLFLOW_TRACKING_URI": f"http://{services.HOST}:{self.ports['mlflow_port']}",
            "PREFECT_HOME": str(root / ".megu" / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        os.environ.update({name: self.environment[name] for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")})

    def up(self) -> None:
        services._START_S = PATIENCE_S  # a crowded machine
        services.up(self.project.home, **self.ports)

    def prefect(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        subprocess.run(command, cwd=self.project.root, env=self.environment, check=True, stdout=self.log, stderr=self.log)

    def work(self) -> psutil.Process:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "megu"]
        started = subprocess.Popen(command, cwd=self.project.root, env=self.environment, stdout=self.log, stderr=self.log)
        return psutil.Process(started.pid)


def until(what: str, holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.3)
    raise SystemExit(f"not in {PATIENCE_S:.0f} s: {what}")


def suspended(name: str) -> Any:
    """A suspended run of a flow that is deployed as ``name``."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"{name}/{name}").id
        runs = client.read_flow_runs(limit=200)
    return next((run for run in runs if run.deployment_id == deployment and run.state_name == "Suspended"), None)


def kill(what: str, service: Service, worker: psutil.Process) -> psutil.Process:
    """Kill one of the parts, start it again, and return the worker that is there then."""
    if what in ("flow", "worker"):
        # The flow's own process is the last of the worker's descendants; the worker may start it again or not, the schedule does.
        doomed = worker.children(recursive=True) if what == "flow" else [*worker.children(recursive=True), worker]
        for process in doomed:
            process.send_signal(signal.SIGKILL)
        return service.work() if what == "worker" else worker
    for entry in services.status(service.project.home):
        if entry.name == what and entry.pid:
            for process in [*psutil.Process(entry.pid).children(recursive=True), psutil.Process(entry.pid)]:
                process.send_signal(signal.SIGKILL)
    service.up()
    return worker


def main(data: Path, what: str | None, at: str) -> dict[str, Any]:
    from prefect.flow_runs import resume_flow_run

    from megu import promotion
    from megu.config import load
    from megu.tracking import lineage, registry

    started, times = time.perf_counter(), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="megu-service-") as folder:
        service = Service(Path(folder) / "project", data)
        project, inbox = service.project, Inbox(service.project)
        worker = None

        def mark(name: str) -> None:
            times[name] = round(time.perf_counter() - started, 1)
            print(f"{times[name]:8.1f} s  {name}", file=sys.stderr, flush=True)

        try:
            service.up()
            mark("servers are up")
            service.prefect("work-pool", "create", "megu", "--type", "process")
            service.prefect("deploy", "--all")
            asked = inbox.add(Request(classes=("Bag",), basis="contract", requester="internal", due="2030-01-01")).id
            worker = service.work()
            mark("deployed")
            if what:
                until(at, lambda: inbox.entry(asked).state == at or inbox.entry(asked).fact("version"))
                worker = kill(what, service, worker)
                mark(f"killed {what} when {inbox.entry(asked).state}")
            until("verified", lambda: inbox.entry(asked).state == "verified")
            mark("verified, by a run of the schedule")
            waiting = until("suspended", lambda: suspended("promote"))
            mark("the approval flow is suspended")
            seen = promotion.look(project, load(project.params, LENIENT), inbox.entry(asked).fact("version").rpartition("/")[2])
            answer = {"decision": "approve", "approver": "Kim", "rationale": "first-model", "evidence": seen.seal}
            resume_flow_run(waiting.id, run_input=answer)
            until("promoted", lambda: inbox.entry(asked).state == "promoted")
            mark("promoted")
            images = arrays.load(project.data("slice")).test.images[:4]
            served = registry.serve(lineage.reach(project.home), "models:/megu@champion", images)
            kinds = [event.kind for event in inbox.entry(asked).events]
            return {
                "killed": what,
                "at": at if what else None,
                "seconds": times,
                "events": [kind.removeprefix("request.") for kind in kinds],
                "once": all(kinds.count(f"request.{state}") == 1 for state in ("approved", "promoted")),
                "champion_moves": len(project.ledger.events("megu", "champion.moved")),
                "served": list(served.shape),
                "ledger": inbox.ledger.check() or "whole",
            }
        finally:
            for process in [*worker.children(recursive=True), worker] if worker and worker.is_running() else []:
                process.kill()
            services.down(project.home)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kill", choices=["flow", "worker", "prefect", "mlflow"])
    parser.add_argument("--at", default="processing")
    given = parser.parse_args()
    print(json.dumps(main(given.data, given.kill, given.at), indent=2))
