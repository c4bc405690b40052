"""Kill a run at random moments, run again, and see whether anything is lost, left or another.

    python benchmarks/crash.py [--times N] [--seed S] [--at STAGE] [--keep FOLDER] [--data FOLDER] [--databases FOLDER]

Makes a tiny project of the first Fashion-MNIST images and runs it once without a kill. Then N times: everything kept is removed, a run
is killed (SIGKILL; every other time its children too), and the next one has to end with the same root. It runs in processes that are forked
from one that has imported all that the first run had imported at its end, on a Prefect server that stays up, so a moment of the kill is one
of the flow, not of an import. --at: kill as soon as a stage's result is kept, not at a random moment. Prints a line a kill and a JSON object
at the end; exit code 1 when something was not as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", metavar="STAGE")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--data", type=Path, help="a folder with Fashion-MNIST as megu keeps it; else it is fetched")
    parser.add_argument("--databases", type=Path, help="a folder with new ones, mlflow.db and prefect.db; else they are made")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.keep or Path(temporary) / "project").resolve()
        os.environ["MEGU_PROJECT"] = str(root)
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            os.environ.pop(name, None)
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        make(root, asked.data, asked.databases)
        from lineage_fixtures import SECRETS
        from ports import free_port

        from megu.core.project import Project
        from megu.lineage.keys import PASSPHRASE
        from megu.servers import services

        os.environ[PASSPHRASE] = SECRETS[PASSPHRASE]
        home = Project(root).home
        services._START_S = 900.0  # on a machine that does other things too
        try:
            services.PORTS.pop("mlflow")  # the runs write to their database themselves
            (prefect,) = services.up(home, prefect_port=free_port())
            os.environ["PREFECT_API_URL"] = f"{prefect.url}/api"
            return crash(root, asked.times, random.Random(asked.seed), asked.at)
        finally:
            services.down(home)


def make(root: Path, data: Path | None, databases: Path | None) -> None:
    from lineage_fixtures import make_project, new_databases

    from megu.core.project import Project
    from megu.data import arrays
    from megu.data.sources import providers

    if not (root / "params.yaml").is_file():
        folder = data or providers.fetch(ROOT, "fashion-mnist").dataset_path
        root.mkdir(parents=True, exist_ok=True)
        make_project(root, arrays.load(folder))
        if databases:
            new_databases(Project(root).home, databases)


def start(learned: Path | None = None) -> int:
    """The process id of a run that has begun. learned: a file for the names of the modules that it has imported at its end."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        from flows.unlearn import unlearn

        unlearn()
        if learned:
            learned.write_text("\n".join(sys.modules), encoding="utf-8")
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def import_all(learned: Path) -> None:
    """What a run has imported, and read to name its results: seconds that every fork would spend again."""
    from megu.core import sources

    for name in learned.read_text(encoding="utf-8").split():
        with contextlib.suppress(Exception):  # some are no module that can be found by its name
            importlib.import_module(name)
        if name.split(".")[0] in sources.PACKAGES:
            sources.closure(name)


def finished(child: int, limit: float = 1800.0) -> bool:
    """Wait for a run; whether it ended well."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def seconds_of_one(project: Any) -> float:
    """How long a run takes that has nothing to import and nothing kept."""
    forget(project)
    began = time.monotonic()
    if not finished(start()):
        raise SystemExit("the second run without a kill failed")
    return time.monotonic() - began


def after(seconds: float) -> float:
    """Wait so long."""
    time.sleep(seconds)
    return seconds


def when_kept(project: Any, stage: str | None) -> float:
    """Wait until a stage's result is kept; how many seconds it took."""
    began = time.monotonic()
    while not any(project.results.glob(f"{stage}-*")):
        if time.monotonic() - began > 600:
            raise SystemExit(f"no stage {stage} in ten minutes")
        time.sleep(0.01)
    return time.monotonic() - began


def crash(root: Path, times: int, chance: random.Random, at: str | None) -> int:
    import flows.unlearn  # noqa: F401 - before the forks
    from megu.core.project import Project
    from megu.tracking import warm_up

    warm_up()
    project = Project(root)
    learned = project.home / "modules.txt"
    if not finished(start(learned)):
        raise SystemExit("the run without a kill failed")
    import_all(learned)
    whole = None if at else seconds_of_one(project)
    first = newest(project)
    wrong: list[str] = []
    moments: list[float] = []
    ended, left, orphans = Counter[str](), 0, 0
    for number in range(1, times + 1):
        forget(project)
        before = {path.name for path in project.dossiers.glob("*")}
        child = start()
        moment = when_kept(project, at) if whole is None else after(chance.uniform(0.0, whole))
        alive = not os.waitpid(child, os.WNOHANG)[0]
        if alive:
            (os.killpg if number % 2 else os.kill)(child, signal.SIGKILL)
            os.waitpid(child, 0)
        moments.append(moment)
        stage = last_stage(project)
        ended[stage] += 1
        problems = [] if finished(start()) else ["the next run failed"]
        found = state(project)
        left = len(found["left"])
        orphans = len(found["killed"])
        if newest(project)["root"] != first["root"]:
            problems.append("another root")
        if found["running"]:
            problems.append(f"runs that never end: {found['running']}")
        if found["unlabelled"]:
            problems.append(f"orphans without a label: {found['unlabelled']}")
        if lost := before - {path.name for path in project.dossiers.glob("*")}:
            problems.append(f"dossiers lost: {sorted(lost)}")
        print(
            f"{number:3} killed at {moment:5.1f} s{f' of {whole:.1f}' if whole else ''} ({stage}): {'; '.join(problems) or 'the same root'}",
            flush=True,
        )
        wrong += [f"{number}: {problem}" for problem in problems]
    from megu.core.files.cleanup import sweep
    from megu.lineage.verify.run import verify

    checked = verify(newest(project)["run"]["mlflow_run_id"], project)
    wrong += [f"{check.name}: {check.says}" for check in checked.checks if check.holds is False]
    swept = sweep(project)
    summary = {
        "kills": times,
        "seconds of a run": whole and round(whole, 1),
        "after": dict(ended),
        "marked as orphans": orphans,
        "verify of the last run": checked.exit_code,
        "temporary files swept at the end": len(swept),
        "temporary files there at the end": left,
        "wrong": wrong,
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


def forget(project: Any) -> None:
    """Remove what is kept, so that the next run computes everything. Its database, its dossiers and its keys stay."""
    for folder in (project.results, project.store.root, project.checkpoints):
        shutil.rmtree(folder, ignore_errors=True)


def last_stage(project: Any) -> str:
    """The stage whose result was kept last before the kill."""
    kept = sorted(project.results.glob("*-*"), key=lambda path: path.stat().st_mtime_ns) if project.results.is_dir() else []
    return kept[-1].name.rsplit("-", 1)[0] if kept else "nothing"


def newest(project: Any) -> dict[str, Any]:
    found = [json.loads(path.read_bytes()) for path in project.dossiers.glob("*/dossier.json")]
    return max(found, key=lambda dossier: dossier["run"]["created"])


def state(project: Any) -> dict[str, list[str]]:
    """What MLflow says of its runs, read from its database so that nothing is changed by asking, and temporary files."""
    import sqlite3

    from megu.core.files.cleanup import left
    from megu.tracking.orphans import ORPHAN_TAG

    with sqlite3.connect(project.home / "mlflow.db") as opened:
        runs = opened.execute("SELECT run_uuid, status FROM runs").fetchall()
        tagged = {run for (run,) in opened.execute("SELECT run_uuid FROM tags WHERE key = ?", (ORPHAN_TAG,))}
    return {
        "running": [run for run, status in runs if status == "RUNNING"],
        "killed": [run for run, status in runs if status == "KILLED" and run in tagged],
        "unlabelled": [run for run, status in runs if status not in ("FINISHED", "RUNNING") and run not in tagged],
        "left": [str(path) for path in left(project)],
    }


if __name__ == "__main__":
    sys.exit(main())
