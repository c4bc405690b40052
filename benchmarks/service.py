"""The service from end to end against real servers: a schedule fires, a worker runs it, a request goes from received to promoted with an
approval given through Prefect's API. With --kill something is killed with SIGKILL when the request is at the point --at, and started
again by what starts it for a user; the request must end promoted, once, with nothing left taken or half done.

    python benchmarks/service.py DATA_FOLDER [--kill flow|worker|prefect|mlflow|all] [--at POINT|all]
        [--results FILE] [--document docs/operations.md] [--databases FOLDER]

DATA_FOLDER: ``data/fashion-mnist``; a slice of it is used. The flow stands still at the point while something is killed
(`benchmarks/hold`), so a point may last microseconds. What is killed: *flow*, the process of the run; *worker*, the worker with its runs, as
when its container ends; *alone*, the worker only, whose run goes on; *prefect* and *mlflow*, the server with all its processes. Every victim
has a project and servers of its own, in which the points are tried one after the other, a request each. Prints a line and a JSON object a
combination; exit code 1 when one did not end right. --results keeps the objects, a line each, and the table is made of all of them.
A combination takes a minute or two of one core, three where a run must be missed first, so none of it is part of CI.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "support")]

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from lineage_fixtures import SECRETS, make_project, new_databases  # noqa: E402
from ports import free_ports  # noqa: E402

from benchmarks.document import write  # noqa: E402
from megu.data import arrays  # noqa: E402
from megu.lineage.keys import PASSPHRASE  # noqa: E402
from megu.lineage.promoted.champions import CHAMPION, MOVED, PREVIOUS, status  # noqa: E402
from megu.requests.inbox import Inbox  # noqa: E402
from megu.requests.request import Request  # noqa: E402
from megu.servers import services  # noqa: E402

#: A model trained for a second passes no real gate.
LENIENT = [f"gate.{name}=100" for name in ("forget_margin", "retain_drop", "class_drop", "mia_band")]
#: Seconds for one step, on a crowded machine; a run that must be missed first takes up to 300 of them.
PATIENCE_S = 420.0

#: In the order in which a request comes by. The ones before "deciding" are the processing flow's, the ones after "suspended" the promotion
#: flow's, in which the requests follow the champion. While it is suspended there is no flow to kill.
POINTS = (
    "received", "accepted", "processing", "stage unlearn", "registered", "unlearned", "verified", "approval.asked", "deciding",
    "suspended", "intended", "previous_champion moved", "champion moved", "read back", "recorded", "approved", "promoted",
)  # fmt: skip
#: What is tried with --at all.
TRIED = {
    "flow": [point for point in POINTS if point not in ("suspended", "promoted")],
    "worker": ["processing", "registered", "deciding", "suspended", "champion moved"],
    "alone": ["processing"],
    "prefect": ["processing", "registered", "deciding", "suspended", "intended", "champion moved", "approved"],
    "mlflow": ["accepted", "processing", "registered", "unlearned", "suspended", "intended", "champion moved", "approved"],
}


class Service:
    """A project with its servers and a worker; everything in the project's folder, on loopback."""

    def __init__(self, root: Path, data: Path, databases: Path | None = None) -> None:
        self.project = make_project(root, arrays.load(data))
        if databases:
            new_databases(self.project.home, databases)
        for name in ("megu", "tasks", "flows", "deploy"):
            (root / name).symlink_to(REPOSITORY / name)
        text = (REPOSITORY / "prefect.yaml").read_text().replace('cron: "0 3 * * *"\n        timezone: UTC', "interval: 20")
        (root / "prefect.yaml").write_text(text.replace("settings: []", f"settings: {json.dumps(LENIENT)}"))
        self.inbox = Inbox(self.project)
        self.ports = free_ports()
        self.log = (root / "worker.log").open("ab")
        self.held = root / "hold"
        self.environment = {
            **os.environ,
            PASSPHRASE: SECRETS[PASSPHRASE],
            "MEGU_PROJECT": str(root),
            "MEGU_HOLD": str(self.held),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "benchmarks" / "hold"), str(REPOSITORY)]),
            "PREFECT_API_URL": f"http://{services.HOST}:{self.ports['prefect_port']}/api",
            "MLFLOW_TRACKING_URI": f"http://{services.HOST}:{self.ports['mlflow_port']}",
            "PREFECT_HOME": str(root / ".megu" / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        os.environ.update({name: self.environment[name] for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")})
        self.worker: psutil.Process | None = None

    def start(self) -> None:
        """As docs/operations.md has a team do it."""
        from prefect.client.schemas.actions import WorkPoolCreate

        self.up()
        with prefect() as client:
            client.create_work_pool(WorkPoolCreate(name="megu", type="process"))
        self.run("prefect", "--no-prompt", "deploy", "--all")
        schedules(active=False)  # until there is something to do: a run takes ten seconds of a core to find nothing
        self.run("megu.cli.main", "automations", "create")
        self.work()

    def up(self) -> None:
        services._START_S = PATIENCE_S  # a crowded machine
        services.up(self.project.home, **self.ports)

    def run(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, cwd=self.project.root, env=self.environment, check=True, stdout=self.log, stderr=self.log)

    def work(self) -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "megu"]
        started = subprocess.Popen(command, cwd=self.project.root, env=self.environment, stdout=self.log, stderr=self.log)
        self.worker = psutil.Process(started.pid)

    def stop(self) -> None:
        end(tree(self.worker))
        services.down(self.project.home)
        for process in psutil.process_iter():  # a run whose worker was killed alone
            try:
                if process.environ().get("MEGU_PROJECT") == str(self.project.root):
                    process.kill()
            except psutil.Error:
                continue

    def kill(self, what: str, flow: int | None) -> None:
        """Kill one of the parts, wait until it is gone, and start again what nobody but a user starts. flow: the process of the run."""
        if what == "flow":
            end([psutil.Process(flow)])
        elif what in ("worker", "alone"):
            assert self.worker is not None
            end(tree(self.worker) if what == "worker" else [self.worker])
            self.work()
        else:
            (server,) = (entry for entry in services.status(self.project.home) if entry.name == what)
            assert server.pid is not None
            end(tree(psutil.Process(server.pid)))
            self.up()


def tree(process: psutil.Process | None) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)] if process and process.is_running() else []


def end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=60)


def until(what: str, holds: Callable[[], Any], patience: float = PATIENCE_S) -> Any:
    stop = time.monotonic() + patience
    while time.monotonic() < stop:
        if found := holds():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"not in {patience:.0f} s: {what}")


@contextmanager
def prefect() -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def approve(service: Service, version: str) -> bool:
    """Answer the form of the suspended run for a version, when there is one."""
    from prefect.flow_runs import resume_flow_run

    from megu.config.tree import load
    from megu.promotion import moves as promotion

    with prefect() as client:
        runs = [run for run in client.read_flow_runs(limit=200) if run.state_name == "Suspended"]
    waiting = [run for run in runs if run.parameters.get("version") == version]
    if not waiting:
        return False
    seen = promotion.inspect_candidate(service.project, load(service.project.params, LENIENT), version)
    answer = {"decision": "approve", "approver": "Kim", "rationale": "first-model", "evidence": seen.seal}
    resume_flow_run(waiting[0].id, run_input=answer)
    return True


def kill_at(service: Service, what: str, at: str) -> None:
    """Wait until the flow stands at the point, kill, and let it go on if it lives."""
    reached = service.held.with_suffix(".reached")
    pid = until(at, lambda: reached.is_file() and reached.read_text())
    service.kill(what, int(pid))
    reached.unlink()


def trial(service: Service, what: str | None, at: str | None, request: Request) -> dict[str, Any]:
    """One request from received to promoted, with a kill; the facts at its end."""
    inbox, times, started = service.inbox, dict[str, float](), time.perf_counter()

    def mark(name: str) -> None:
        times[name] = round(time.perf_counter() - started, 1)
        print(f"{times[name]:8.1f} s  {name}", file=sys.stderr, flush=True)

    def hold() -> None:
        if at and at != "suspended":
            service.held.write_text(at)

    def strike() -> None:
        assert what
        assert at
        if at == "suspended":
            service.kill(what, None)
        else:
            kill_at(service, what, at)
        mark(f"killed {what} at {at}")

    before = len(service.project.ledger.events("megu", MOVED))
    asked = inbox.add(request).id
    fire(once=at is None)
    point = POINTS.index(at) if at else len(POINTS)
    if point < POINTS.index("suspended"):
        hold()
        strike()
    until("verified", lambda: inbox.entry(asked).state == "verified")
    mark("verified, by a run of the schedule")
    version = inbox.entry(asked).fact("version").rpartition("/")[2]
    if at is None or at == "suspended":
        until("suspended", lambda: _waits(version))
        until("a run that waits occupies no process", lambda: not tree(service.worker)[1:])
    if at == "suspended":
        strike()
    elif at and point > POINTS.index("suspended"):
        hold()
    until("suspended", lambda: approve(service, version))
    mark("approved, in the suspended flow")
    if at and point > POINTS.index("suspended"):
        strike()
    while inbox.entry(asked).state != "promoted":
        # A run that died after the answer has asked again.
        if inbox.entry(asked).state == "verified" and not _moved(service, version) and approve(service, version):
            mark("approved again")
        if time.perf_counter() - started > 2 * PATIENCE_S:
            raise TimeoutError("promoted")
        time.sleep(0.3)
    mark("promoted")
    schedules(active=False)
    # A run that must be missed first keeps back those that fire in the meantime, one every 20 s; each then has its turn.
    until("nothing taken", quiet, 3 * PATIENCE_S)
    mark("nothing is taken or running")
    return {"killed": what, "at": at, "seconds": times, **facts(service, asked, version, before)}


def _waits(version: str) -> bool:
    with prefect() as client:
        runs = client.read_flow_runs(limit=200)
    return any(run.state_name == "Suspended" and run.parameters.get("version") == version for run in runs)


def _moved(service: Service, version: str) -> bool:
    return any(event.facts["version"] == version for event in service.project.ledger.events("megu", "champion."))


def fire(*, once: bool) -> None:
    """Have the schedule begin runs. once: no other than the first, which has nothing to fear and does all there is."""
    schedules(active=True)
    if once:
        until("a run of the schedule", alive)
        schedules(active=False)


def schedules(*, active: bool) -> None:
    with prefect() as client:
        deployment = client.read_deployment_by_name("process/process")
        (client.resume_deployment if active else client.pause_deployment)(deployment.id)


def taken() -> dict[str, int]:
    """Limits with slots in use, the deployments' own among them."""
    with prefect() as client:
        return {
            limit.name: limit.active_slots for limit in client.read_global_concurrency_limits(limit=100) if limit.active_slots
        }


def alive() -> list[str]:
    """Flow runs that Prefect thinks are at work."""
    return [name for name, kind in _runs() if kind != "SCHEDULED"]


def quiet() -> bool:
    """Whether nothing is taken, at work or still to begin, and stays so while a worker looks twice for what is due."""
    for _ in range(2):
        if taken() or _runs():
            return False
        time.sleep(2.5)
    return not taken() and not _runs()


def _runs() -> list[tuple[str, str]]:
    with prefect() as client:
        runs = client.read_flow_runs(limit=200)
    kinds = [(f"{run.name}: {run.state_name}", run.state.type.value) for run in runs if run.state]
    return [(name, kind) for name, kind in kinds if kind in ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")]


def facts(service: Service, asked: str, version: str, before: int) -> dict[str, Any]:
    """How things stand at the end, and whether that is right."""
    from megu.tracking import client as mlflow
    from megu.tracking import lineage, registry

    project, entry = service.project, service.inbox.entry(asked)
    kinds = [event.kind.removeprefix("request.") for event in entry.events]
    events = project.ledger.events("megu")
    moves = [event for event in events if event.kind == MOVED]
    connected = lineage.reach(project.home)
    at = lineage.aliases(connected, "megu")
    images = arrays.load(project.data("slice")).test.images[:4]
    served = registry.serve(connected, "models:/megu@champion", images)
    running = mlflow(project.home).search_runs(
        [experiment.experiment_id for experiment in mlflow(project.home).search_experiments()], "attributes.status = 'RUNNING'"
    )
    found = {
        "state": entry.state,
        "events": kinds,
        "failures": entry.failures,
        "champion_moves": len(moves) - before,
        "versions": int(version),
        "champion": at.get(CHAMPION),
        "previous_champion": at.get(PREVIOUS),
        "open_intent": status(events).intent is not None,
        "slots_taken": taken(),
        "running": alive(),
        "mlflow_running": len(running),
        "served": list(served.shape),
        "ledger": project.ledger.check() or "whole",
    }
    wanted = {
        "promoted": entry.state == "promoted",
        "approved once": kinds.count("approved") == 1,
        "promoted once": kinds.count("promoted") == 1,
        "verified once": kinds.count("verified") == 1,
        "one move": found["champion_moves"] == 1,
        "champion": found["champion"] == version == moves[-1].facts["version"],
        "previous champion": found["previous_champion"] == (moves[-2].facts["version"] if len(moves) > 1 else None),
        "no intent": not found["open_intent"],
        "no slot": not found["slots_taken"],
        "no run": not found["running"],
        "no MLflow run": not found["mlflow_running"],
        "ledger": found["ledger"] == "whole",
    }
    return {**found, "wrong": [name for name, holds in wanted.items() if not holds]}


def requests(data: Path) -> Iterator[Request]:
    """A class first, then three images at a time, each of another class in turn."""
    common = {"basis": "contract", "requester": "internal", "due": "2030-01-01"}
    yield Request(classes=("Bag",), **common)  # type: ignore[arg-type]
    train = arrays.load(data).train
    for number in range(30):
        at = np.flatnonzero(train.labels == number % 8)[3 * (number // 8) :][:3]
        yield Request(ids=tuple(train.ids[index].decode() for index in at), **common)  # type: ignore[arg-type]


def tries(data: Path, databases: Path | None, what: str | None, points: Sequence[str | None]) -> Iterator[dict[str, Any]]:
    """One victim at several points, in one project."""
    with tempfile.TemporaryDirectory(prefix="megu-service-", ignore_cleanup_errors=True) as folder:
        service = Service(Path(folder) / "project", data, databases)
        try:
            service.start()
            made = requests(service.project.data("slice"))
            for at in points:
                try:
                    yield trial(service, what, at, next(made))
                except Exception as error:
                    ended = {"state": ([entry.state for entry in service.inbox.entries()] or ["unknown"])[-1]}
                    print(service.project.root.joinpath("worker.log").read_text()[-6000:], file=sys.stderr)
                    yield {"killed": what, "at": at, **ended, "wrong": [f"{type(error).__name__}: {error}"]}
                    return
        finally:
            service.stop()


def apart(*arguments: Any) -> Iterator[dict[str, Any]]:
    """`tries` in a process of its own: Prefect and MLflow keep to the servers that a process asked first."""
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(send, *arguments))
    process.start()
    send.close()
    try:
        while True:
            yield receive.recv()
    except EOFError:
        process.join()


def _send(send: Connection, *arguments: Any) -> None:
    for one in tries(*arguments):
        send.send(one)


#: How the page calls what was killed.
NAMES = {
    None: "nothing",
    "flow": "the flow",
    "worker": "the worker and its run",
    "alone": "the worker alone",
    "prefect": "the Prefect server",
    "mlflow": "the MLflow server",
}


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """The page's rows, of all trials."""
    order = list(NAMES)
    rows = sorted(found, key=lambda one: (order.index(one["killed"]), POINTS.index(one["at"]) if one["at"] else 0))
    lines = [
        "| killed | at | the request | promoted after | all free after | champion moved | counted as failed | slots taken | right |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        seconds = one.get("seconds", {})
        at = next((value for name, value in seconds.items() if name.startswith("killed")), 0.0)
        after = [
            f"{seconds[name] - at:.0f} s" if name in seconds else "-" for name in ("promoted", "nothing is taken or running")
        ]
        counted = [str(one.get(name, "-")) for name in ("champion_moves", "failures")]
        slots = str(sum(one["slots_taken"].values())) if "slots_taken" in one else "-"
        right = "yes" if not one["wrong"] else f"**no**: {', '.join(one['wrong'])}"
        cells = [NAMES[one["killed"]], one["at"] or "-", one["state"], *after, *counted, slots, right]
        lines.append(f"| {' | '.join(cells)} |")
    ends = [not one["wrong"] for one in found]
    return [
        *lines,
        "",
        f"{sum(ends)} of {len(ends)} ended right. Times are from the kill (of the first line: from the request).",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kill", choices=[*TRIED, "all"])
    parser.add_argument("--at", nargs="+", choices=[*POINTS, "all"], default=["processing"])
    parser.add_argument("--results", type=Path, help="append the JSON objects to this file, and make the table of all in it")
    parser.add_argument("--document", type=Path, help="write the table into this page, between its markers")
    parser.add_argument("--databases", type=Path, help="a folder with new ones, mlflow.db and prefect.db; else they are made")
    given = parser.parse_args()
    found = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results and given.results.exists()
        else []
    )
    wrong = False
    for what in [None] if given.kill is None else list(TRIED) if given.kill == "all" else [given.kill]:
        left: list[str | None] = [None] if what is None else list(TRIED[what]) if given.at == ["all"] else list(given.at)
        while left:  # a trial that ends wrong leaves its project to nobody: the next has a new one
            before = len(left)
            for one in apart(given.data.resolve(), given.databases, what, tuple(left)):
                left.remove(one["at"])
                print(json.dumps(one), flush=True)
                found = [other for other in found if (other["killed"], other["at"]) != (one["killed"], one["at"])] + [one]
                wrong |= bool(one["wrong"])
                if given.results:
                    given.results.write_text("".join(f"{json.dumps(other)}\n" for other in found))
                if given.document:
                    write(given.document, "kills", table(found))
            if len(left) == before:
                raise SystemExit(f"the service did not start for {what}")
    print("\n".join(table(found)))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
