"""Press Ctrl-C in a real terminal at chosen moments of a command, or kill it, and see how long it takes, what it says and what it leaves.

    python benchmarks/interrupt.py [--command run|bench|process|label] [--moments NAME,NAME,…] [--random N] [--up]
        [--signal INT|TERM|KILL] [--seed S] [--keep FOLDER] [--data FOLDER] [--databases FOLDER]

Makes a tiny project of the first Fashion-MNIST images. For every moment all results are removed, the command starts in a pseudo-terminal,
and at the moment the terminal sends Ctrl-C to everything in its foreground (--signal TERM: SIGTERM to the group). A moment is a number of
seconds or the name of a stage, which has then been under way for a tenth of a second. --signal KILL: SIGKILL to the command alone, which then
can close nothing. `process` always has a request to work on. At the end one more run of the same command has to end well (two, where a request
was given up after the last of the kills that it can bear); then nothing may be
"running" in Prefect or MLflow, every request has to be verified, once, no slot may be taken, and no temporary file, checkpoint or file of a
dead process may be left. Prints a line a moment and a JSON object; exit code 1 when something was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

#: What is to be there when a stage is under way: the record of the one before it.
BEFORE = {
    "dataset": "live",
    "split": "results/dataset-*",
    "original": "results/split-*",
    "labeling": "results/entanglement-*",
    "perturbing": "results/transition-*",
    "noise": "results/perturbing-*",
    "unlearn": "results/noise-*",
    "reference": "results/unlearn-*",
    "evaluation": "results/reference-*",
    "figures": "results/evaluation-*",
    "recording": "results/figures-*",
}
MOMENTS = ["0.5", "4", "dataset", "original", "labeling", "noise", "unlearn", "reference", "evaluation", "recording"]
BENCH = """\
name: interrupted
seeds: [0, 1]
targets: [{classes: [Sneaker]}, {classes: [Bag]}]
methods: [{method: megu}, {method: finetune}]
"""
#: What requests ask for, one after the other.
CLASSES = ("Bag", "Shirt", "Coat", "Dress", "Trouser", "Sandal", "Pullover")
#: Seconds in which a command has to be gone.
LIMIT_S = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", default="run", choices=["run", "bench", "process", "label"])
    parser.add_argument("--moments", default=",".join(MOMENTS))
    parser.add_argument("--random", type=int, default=0, help="so many random moments of a whole run instead")
    parser.add_argument("--up", action="store_true", help="with the servers of megu up")
    parser.add_argument("--signal", default="INT", choices=["INT", "TERM", "KILL"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--data", type=Path, help="a folder with Fashion-MNIST as megu keeps it; else it is fetched")
    parser.add_argument("--databases", type=Path, help="as of benchmarks/crash.py")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.keep or Path(temporary) / "project").resolve()
        from benchmarks.crash import make

        make(root, asked.data, asked.databases)
        if asked.up:
            from ports import free_ports

            ports = [f"--{name.replace('_', '-')}={port}" for name, port in free_ports().items()]
            subprocess.run(megu("up", *ports), cwd=root, env=environment(root), check=True, stdout=subprocess.DEVNULL)
        try:
            return interrupt(root, asked)
        finally:
            subprocess.run(megu("down"), cwd=root, env=environment(root), check=False, stdout=subprocess.DEVNULL)


def megu(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "megu", *arguments]


def environment(root: Path) -> dict[str, str]:
    from lineage_fixtures import SECRETS

    from megu.lineage.keys import PASSPHRASE

    ours = ("PREFECT_", "MLFLOW_", "MEGU_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {"OMP_NUM_THREADS": "1", **kept, PASSPHRASE: SECRETS[PASSPHRASE], "MEGU_PROJECT": str(root), "PYTHONPATH": str(ROOT)}


def interrupt(root: Path, asked: argparse.Namespace) -> int:
    from benchmarks.crash import forget
    from megu.core.project import Project

    project, chance = Project(root), random.Random(asked.seed)
    command = {
        "run": ["run"], "process": ["process"], "label": ["label"], "bench": ["bench", str(root / "bench.yaml")],
    }[asked.command]  # fmt: skip
    (root / "bench.yaml").write_text(BENCH)
    whole = 0.0
    if asked.random:
        started = time.monotonic()
        subprocess.run(megu("run", "--quiet"), cwd=root, env=environment(root), check=True, capture_output=True)
        whole = time.monotonic() - started
    named, classes = iter(asked.moments.split(",")), iter(CLASSES)
    wrong: list[str] = []
    seconds: list[float] = []
    number = signal.Signals[f"SIG{asked.signal}"]
    lenient = [f"--set=gate.{name}=100" for name in ("forget_margin", "retain_drop", "class_drop", "mia_band")]
    if asked.command == "process":
        command += lenient

    def next_moment() -> str | None:
        """By chance within a whole run, until so many commands were stopped: one that ends before its moment says how long one takes."""
        if not asked.random:
            return next(named, None)
        return f"{chance.uniform(0.2, whole):.1f}" if len(seconds) < asked.random else None

    while moment := next_moment():
        if asked.command == "process":
            ask(project, classes)
        forget(project)
        before = set(state(project)["ended"])
        found = in_terminal(root, command, number, moment, project.home)
        now = state(project)
        problems = judge(found, number, now)
        if found["interrupted"]:
            seconds.append(found["seconds"])
        else:
            whole = min(whole, found["took"])
        counted = Counter(f"{where} {how}" for where, what, how in set(now["ended"]) - before)
        ended = ", ".join(f"{count} {how}" for how, count in sorted(counted.items())) or "no run"
        print(
            f"{moment:>10}: {found['seconds']:.1f} s, exit {found['exit']}, {ended}; {'; '.join(problems) or 'right'}",
            flush=True,
        )
        wrong += [f"{moment}: {problem}" for problem in problems]
    wrong += run_again(project, root, command)
    wrong += left_behind(project)
    print(json.dumps({
        "command": asked.command, "signal": asked.signal, "servers": asked.up, "interrupted": len(seconds),
        "slowest": max(seconds, default=0), "limit": LIMIT_S, "wrong": wrong,
    }))  # fmt: skip
    return 1 if wrong else 0


def run_again(project: Any, root: Path, command: list[str]) -> list[str]:
    """What is wrong with one more run; with a second one where the first has counted a kill that was the last a request could bear."""
    for _ in range(2):
        last = subprocess.run(megu(*command), cwd=root, env=environment(root), check=False, capture_output=True, text=True)
        if last.returncode:
            return [f"the run after them failed: {last.stderr[-300:]}"]
        if not tried_again(project):
            break
    return []


def tried_again(project: Any) -> bool:
    """Have requests tried again whose runs were killed too often, as their person would have it; whether there was one."""
    from megu.requests.inbox import Inbox
    from megu.requests.request import RequestParams

    inbox = Inbox(project)
    given_up = [entry.id for entry in inbox.entries("accepted") if entry.failures >= RequestParams().attempts]
    for request in given_up:
        inbox.retry(request)
    return bool(given_up)


def ask(project: Any, classes: Iterator[str]) -> None:
    """Have a request that can be processed: another class's when all before are done."""
    from megu.requests.inbox import Inbox
    from megu.requests.request import Request

    inbox = Inbox(project)
    tried_again(project)
    if all(entry.state == "verified" for entry in inbox.entries()):
        inbox.add(Request(classes=(next(classes),), basis="contract", requester="internal", due="2030-12-24"))


def judge(found: dict[str, Any], number: signal.Signals, now: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    if not found["interrupted"] or number == signal.SIGKILL:
        return (
            []
            if number == signal.SIGKILL or found["exit"] == 0
            else [f"ended with {found['exit']} before the moment: {found['said'][-300:]}"]
        )
    said = [line for line in found["said"].splitlines() if "megu: " in line]
    checks = {
        f"took {found['seconds']:.1f} s": found["seconds"] <= LIMIT_S,
        f"exit code {found['exit']}": found["exit"] == 128 + number,
        f"said {said or found['said'][-300:]!r}": len(said) == 1 and "stopped" in said[0],
        "a traceback": "Traceback" not in found["said"],
        f"left processes: {found['left']}": not found["left"],
        f"left running: {now['running']}": not now["running"],
    }
    return [problem for problem, fine in checks.items() if not fine]


def in_terminal(root: Path, command: list[str], number: signal.Signals, moment: str, home: Path) -> dict[str, Any]:
    """Run a command in a terminal and press Ctrl-C in it; how it ended, how many seconds after, and what it showed since."""
    import psutil

    child, terminal = pty.fork()
    if not child:
        for heard in (
            signal.SIGINT,
            signal.SIGHUP,
        ):  # a shell starts what runs in the background deaf to them, which is inherited
            signal.signal(heard, signal.SIG_DFL)
        os.chdir(root)
        os.execve(sys.executable, megu(*command), environment(root))
    reached, started = at(moment, home), time.monotonic()
    said, shown, pressed, before = b"", b"", 0.0, set[int]()
    while True:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                shown = os.read(terminal, 65536)
            except OSError:
                break
            if not shown:
                break
            said += shown
        if not pressed and reached():
            before = {entry.pid for entry in psutil.Process(child).children(recursive=True)}
            pressed, said = time.monotonic(), b""
            if number == signal.SIGINT:
                os.write(terminal, b"\x03")
            else:
                (os.kill if number == signal.SIGKILL else os.killpg)(child, number)
        if pressed and time.monotonic() - pressed > 200:
            os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = time.monotonic()
    os.close(terminal)
    time.sleep(0.1)
    left = [pid for pid in before if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    return {
        "interrupted": bool(pressed), "took": ended - started, "seconds": ended - pressed if pressed else 0.0,
        "exit": os.waitstatus_to_exitcode(status), "said": said.decode(errors="replace"), "left": left,
    }  # fmt: skip


def at(moment: str, home: Path) -> Callable[[], bool]:
    """Whether the moment has come."""
    started = time.monotonic()
    if moment not in BEFORE:
        return lambda: time.monotonic() - started >= float(moment)
    seen: list[float] = []

    def reached() -> bool:
        if not seen and any(home.glob(BEFORE[moment])):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= 0.1

    return reached


def left_behind(project: Any) -> list[str]:
    """What should not be there after the last run."""
    from megu.core.files import liveness
    from megu.core.files.cleanup import left
    from megu.requests.inbox import Inbox

    found = [f"running at the end: {run}" for run in state(project)["running"]]
    found += [f"left: {path}" for path in left(project)]
    found += [f"a checkpoint that no run went on from: {path}" for path in project.checkpoints.glob("*")]
    found += [f"the file of a dead process: {name}" for name in liveness.dead(project.home)]
    for entry in Inbox(project).entries():
        verified = sum(event.kind == "request.verified" for event in entry.events)
        if (entry.state, verified) != ("verified", 1):
            found.append(f"request {entry.id} is {entry.state}, verified {verified} times")
    with sqlite3.connect(f"{(project.home / 'prefect' / 'prefect.db').as_uri()}?mode=ro", uri=True, timeout=10) as opened:
        rows = opened.execute("SELECT name, active_slots FROM concurrency_limit_v2 WHERE active_slots > 0").fetchall()
    return found + [f"taken slots of {name}: {count}" for name, count in rows]


def state(project: Any) -> dict[str, Any]:
    """The runs that Prefect and MLflow call running, and how the others ended; read from their databases, so nothing is changed by asking."""
    running, ended = [], []
    queries = {
        "Prefect": ("prefect/prefect.db", "SELECT id, state_type FROM flow_run UNION ALL SELECT id, state_type FROM task_run"),
        "MLflow": ("mlflow.db", "SELECT run_uuid, status FROM runs"),
    }
    for where, (file, query) in queries.items():
        path = project.home / file
        if not path.is_file():
            continue
        try:
            with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10) as opened:
                rows = opened.execute(query).fetchall()
        except sqlite3.OperationalError:  # no tables yet
            continue
        for run, how in rows:
            if how in ("RUNNING", "PENDING", "CANCELLING", "SCHEDULED"):
                running.append(f"{where} {run} {how}")
            else:
                ended.append((where, run, how))
    return {"running": running, "ended": ended}


if __name__ == "__main__":
    sys.exit(main())
