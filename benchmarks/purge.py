"""Kill a purge anywhere, purge again, and see whether it ends as one that was not killed.

    python benchmarks/purge.py [--times N] [--seed S] [--data FOLDER]

Makes a tiny project of the first Fashion-MNIST images with two finished runs, one for a class and one for single images, the data set in DVC's
cache and in a remote. A copy of it is purged of the second without a kill. Then N copies: `megu purge --apply` is killed (SIGKILL), every other
time at a random moment, every other time right before one of the changes that it makes to files (half of these times one of the last, where
the verdict is published), and is run again. It has to come to the same verdict on every surface with the same erased, by one document; a search
finds nothing of the images; the purged run verifies `--sealed`, the other as it is. It runs in processes that are forked from one that has
imported everything. Prints a line a kill and a JSON object at the end; exit code 1 when something was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "erasure")]

#: Changes from the end, in which the verdict is published.
_LAST = 24
#: What Python says before it changes a file (`sys.addaudithook`); a database's own writes are between them.
_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "sqlite3.connect"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a folder with Fashion-MNIST as megu keeps it; else it is fetched")
    asked = parser.parse_args()
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        return crash(folder, *make(folder / "project", asked.data), asked.times, random.Random(asked.seed))


def make(root: Path, data: Path | None) -> tuple[str, str]:
    """A project with two finished runs on servers of its own, which are stopped again; returns their MLflow run ids."""
    from lineage_fixtures import SECRETS, make_project
    from ports import free_port

    from megu.data import arrays, dvc
    from megu.data.sources import providers
    from megu.lineage.keys import PASSPHRASE
    from megu.servers import services

    os.environ.update({"MEGU_PROJECT": str(root), PASSPHRASE: SECRETS[PASSPHRASE]})
    root.mkdir(parents=True)
    project = make_project(root, arrays.load(data or providers.fetch(ROOT, "fashion-mnist").dataset_path))
    dvc.run(root, "commit", "--quiet", "--force", "data.dvc")
    dvc.run(root, "remote", "add", "--default", "near", str(root / "remote"))
    dvc.run(root, "push", "--quiet", "data.dvc")
    (root / ".dvc" / "config").write_text((root / ".dvc" / "config").read_text().replace(str(root / "remote"), "../remote"))
    chosen = ", ".join(value.decode() for value in arrays.load(project.data("slice")).train.ids[:70:10])
    services._START_S = 900.0  # on a machine that does other things too
    try:
        started = services.up(project.home, prefect_port=free_port(), mlflow_port=free_port())
        os.environ["PREFECT_API_URL"] = f"{started[0].url}/api"
        found = []
        for settings in ([], ["forget.scenario=ids", "forget.classes=[]", f"forget.ids=[{chosen}]"]):
            before = set(names(project))
            in_child(lambda settings=settings: unlearned(settings), root.parent / "run.json")
            (made,) = set(names(project)) - before
            found.append(made)
    finally:
        services.down(project.home)
        os.environ.pop("PREFECT_API_URL", None)
    return found[0], found[1]


def unlearned(settings: list[str]) -> str:
    from flows.unlearn import unlearn

    return str(unlearn(settings=settings).mlflow_run_id)


def names(project: Any) -> list[str]:
    return [path.name for path in project.dossiers.glob("*")]


def in_child(work: Callable[[], Any], answer: Path) -> Any:
    """What ``work`` returns in a forked process. Raises ``SystemExit`` when that fails."""
    child = forked(work, answer)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("a process that was not killed failed")
    return json.loads(answer.read_text(encoding="utf-8"))


def forked(work: Callable[[], Any], answer: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        answer.write_text(json.dumps(work()), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def purge(root: Path, run_id: str, die_at: int = 0) -> dict[str, Any]:
    """`megu purge --apply`, killed before the ``die_at``-th change to a file; 0: never. Returns what it came to."""
    from megu.core.project import Project
    from megu.erasure import run
    from megu.erasure.params import PurgeParams

    changes = 0

    def count(event: str, _: Any) -> None:
        nonlocal changes
        if event in _CHANGES:
            changes += 1
            if changes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    began = time.monotonic()
    outcome = run.apply(Project(root), [run_id], PurgeParams(models_days=0))
    return {
        "surfaces": {surface.name: surface.verdict for surface in outcome.surfaces},
        "resumed": outcome.resumed,
        "signed": outcome.sealed is not None,
        "changes": changes,
        "seconds": time.monotonic() - began,
    }


def state(root: Path, older: str, newer: str, patterns: Any) -> dict[str, Any]:
    """What is there after a purge: the verdict as it was signed, what a search finds, what verify says of both runs."""
    from megu.core.files.cleanup import left
    from megu.core.project import Project
    from megu.erasure.journal import Journal
    from megu.erasure.plan import Tracked, search_stores
    from megu.erasure.search.scan import Scanner
    from megu.lineage.verify.run import verify

    project = Project(root)
    hits, _ = search_stores(project, [Scanner(patterns)], Tracked())
    written = sorted((project.dossiers / newer).glob("purge*.json"))
    signed = json.loads(written[0].read_bytes())["purge"]
    sealed, other = verify(newer, project, sealed=True), verify(older, project)
    return {
        "surfaces": {entry["name"]: entry["verdict"] for entry in signed["surfaces"]},
        "erased": sorted(entry["what"] for entry in signed["erased"]),
        "data": signed["data"],
        "documents": [path.name for path in written],
        "events": len(project.ledger.events(newer, "purge.done")),
        "found": sorted(str(path) for path in hits),
        "journal": sorted(str(path) for path in project.home.glob(f"*{Journal.of(project).root.name}*/**/*")),
        "left": [str(path) for path in left(project)],
        "sealed": [f"{check.name}: {check.says}" for check in sealed.checks if check.holds is not True],
        "other": [f"{check.name}: {check.says}" for check in other.checks if check.holds is not True],
    }


def crash(folder: Path, older: str, newer: str, times: int, chance: random.Random) -> int:
    from purge_fixtures import moved

    from megu.core.project import Project
    from megu.erasure.forgotten import forgotten_samples, targets
    from megu.tracking import warm_up

    warm_up()
    project, answer = Project(folder / "project"), folder / "answer.json"
    (patterns,) = forgotten_samples(project, targets(project, [newer]), True).patterns()

    def copied(name: str) -> Path:
        return moved(project, folder / name).root

    straight = copied("straight")
    whole = in_child(lambda: purge(straight, newer), answer)
    expected = in_child(lambda: state(straight, older, newer, patterns), answer)
    empty = ("found", "journal", "left", "sealed", "other")
    if bad := {name: expected[name] for name in empty if expected[name]}:
        raise SystemExit(f"the purge without a kill: {bad}")
    wrong: list[str] = []
    resumed = again = ended = 0
    for number in range(1, times + 1):
        root, at = copied("own"), chance.randint(1 if number % 4 else whole["changes"] - _LAST, whole["changes"])
        moment = chance.uniform(0.0, whole["seconds"])
        if number % 2:
            child, where = forked(lambda root=root: purge(root, newer), answer), f"at {moment:.2f} s"
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        else:
            child, where = forked(lambda root=root, at=at: purge(root, newer, at), answer), f"before change {at}"
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ended += status == 0
        problems = [] if status in (0, -signal.SIGKILL) else [f"it ended with {status}"]
        next_one = in_child(lambda root=root: purge(root, newer), answer)
        resumed += next_one["resumed"]
        again += next_one["signed"] and not next_one["resumed"]
        found = in_child(lambda root=root: state(root, older, newer, patterns), answer)
        problems += [f"{name}: {found[name]}, not {expected[name]}" for name in expected if found[name] != expected[name]]
        said = "went on" if next_one["resumed"] else "from the start" if next_one["signed"] else "it was done"
        print(f"{number:3} killed {where} ({said}): {'; '.join(problems)[:600] or 'the same'}", flush=True)
        wrong += [f"{number}: {problem[:300]}" for problem in problems]
        shutil.rmtree(root)
    summary = {
        "kills": times - ended,
        "too late": ended,
        "seconds of a purge": round(whole["seconds"], 2),
        "changes of a purge": whole["changes"],
        "gone on with": resumed,
        "begun anew": again,
        "erased each time": len(expected["erased"]),
        "wrong": wrong,
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
