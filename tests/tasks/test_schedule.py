"""Many runs of one wiring: each stage once, on one worker or several; a failure stays where it is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from megu.core.errors import MeguError
from megu.core.progress import watching
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from tasks.run.schedule import Inspection, Scheduler, outstanding

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

CALLS: Counter[str] = Counter()
AT_ONCE: list[int] = []
LOCK = threading.Lock()


def base(project: Project, seed: int) -> Outcome:
    with LOCK:
        CALLS[f"base {seed}"] += 1
        AT_ONCE.append(1)
    time.sleep(0.3)
    with LOCK:
        AT_ONCE.append(-1)
    return Outcome(values={"base": seed})


def leaf(project: Project, base: Result, others: list[Result], factor: int) -> Outcome:
    with LOCK:
        CALLS[f"leaf {base.values['base']} {factor}"] += 1
    if factor == 13:
        raise MeguError("unlucky", "choose\nanother")
    return Outcome(values={"product": base.values["base"] * factor + sum(entry.values["base"] for entry in others)})


BASE, LEAF = Stage("base", "Make the base", base), Stage("leaf", "Multiply", leaf)
CELLS = [(seed, factor) for seed in (1, 2, 3) for factor in (5, 7)]


def wiring(seed: int, factor: int) -> Callable[[Any], Any]:
    def wired(run: Any) -> None:
        run(LEAF, base=run(BASE, seed=seed), others=[run(BASE, label="another", seed=1)], factor=factor)

    return wired


def carried_out(
    project: Project, cells: list[tuple[int, int]], slots: int = 1
) -> tuple[dict[tuple[int, int], Inspection], Scheduler]:
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    CALLS.clear()
    AT_ONCE.clear()
    found: dict[tuple[int, int], Inspection] = {}
    scheduler = Scheduler(project, slots, 1, slots > 1, {"mlflow_run_id": "parent"})

    @flow(name="many", task_runner=ThreadPoolTaskRunner(max_workers=slots))
    def many() -> None:
        for cell, look in scheduler.run({cell: wiring(*cell) for cell in cells}):
            found[cell] = look

    many()
    return found, scheduler


@pytest.mark.parametrize("slots", [1, 3])
def test_a_stage_that_several_need_runs_once(project: Project, slots: int) -> None:
    kept, missing = outstanding(project, {cell: wiring(*cell) for cell in CELLS})
    assert (len(kept), len(missing)) == (0, 9)
    found, scheduler = carried_out(project, CELLS, slots)
    assert set(CALLS.values()) == {1}
    assert len(CALLS) == len(scheduler.computed) == 9
    assert {cell: look["leaf"].result.values["product"] for cell, look in found.items()} == {
        (seed, factor): seed * factor + 1 for seed, factor in CELLS
    }
    assert all(ran.result.origin["mlflow_run_id"] == "parent" for look in found.values() for ran in look.ran)
    at_once = max(sum(AT_ONCE[: end + 1]) for end in range(len(AT_ONCE)))
    assert (at_once > 1) == (slots > 1)
    again, scheduler = carried_out(project, CELLS, slots)
    assert not CALLS
    assert not scheduler.computed
    assert {cell: look["leaf"].result for cell, look in again.items()} == {
        cell: look["leaf"].result for cell, look in found.items()
    }
    kept, missing = outstanding(project, {cell: wiring(*cell) for cell in CELLS})
    assert (len(kept), len(missing)) == (9, 0)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_failure_is_one_line_and_stops_no_other(project: Project, slots: int) -> None:
    found, _ = carried_out(project, [(1, 5), (2, 13), (2, 7)], slots)
    assert found[2, 13].error == "leaf: unlucky: choose another"
    assert found[1, 5].error is found[2, 7].error is None
    assert CALLS["leaf 2 13"] == 1
    found, scheduler = carried_out(project, [(2, 13), (2, 7)], slots)
    assert CALLS == {"leaf 2 13": 1}, "the next time it is tried again"
    assert not scheduler.computed


def test_one_worker_finishes_a_run_before_it_begins_the_next(project: Project) -> None:
    order: list[str] = []

    class Listener:
        def stage_starts(self, name: str, title: str) -> None:
            order.append(name)

        def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None: ...

        def note(self, text: str) -> None: ...

    with watching(Listener()):
        carried_out(project, [(2, 5), (3, 5)])
    assert order == ["base", "another", "leaf", "base", "leaf"]


def test_a_damaged_file_is_made_again(project: Project) -> None:
    carried_out(project, [(1, 5)])
    for record in project.results.glob("leaf-*"):
        record.write_text("{")
    carried_out(project, [(1, 5)])
    assert CALLS == {"leaf 1 5": 1}
