from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]


class Counter:
    """Two stages, the second on the first, that count how often they compute. flow_runs: Prefect's ids of the runs so far."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.flow_runs: list[str | None] = []
        self.outside = True

        def one(project: Project, number: int) -> Outcome:
            self.calls.append("one")
            return Outcome(files={"square": project.store.put_json(number * number)}, values={"parity": number % 2})

        def two(project: Project, one: Result, factor: int) -> Outcome:
            self.calls.append("two")
            return Outcome(values={"product": project.store.json(one.files["square"]) * factor}, notes={"mood": "good"})

        self.one = Stage("one", "Square", one, intact=lambda project, result: self.outside)
        self.two = Stage("two", "Multiply", two)

    def wiring(self, run: Any, number: int, factor: int) -> Any:
        return run(self.two, one=run(self.one, number=number), factor=factor)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def go(project: Project, counter: Counter) -> Callable[..., tuple[Any, list[bool], list[str]]]:
    from prefect import flow
    from prefect.runtime import flow_run

    from tasks.run.engine import Executor

    def run(number: int = 3, factor: int = 2) -> tuple[Any, list[bool], list[str]]:
        executor = Executor(project)
        counter.calls.clear()

        @flow(name="two-stages")
        def both() -> None:
            counter.flow_runs.append(flow_run.get_id())
            executor.last = counter.wiring(executor, number, factor)  # type: ignore[attr-defined]

        both()
        return executor.last, [ran.decision.hit for ran in executor.ran], list(counter.calls)  # type: ignore[attr-defined]

    return run


def plan(project: Project, counter: Counter, number: int = 3, factor: int = 2) -> list[tuple[bool, str]]:
    from tasks.run.engine import Planner

    planner = Planner(project)
    counter.wiring(planner, number, factor)
    return [(decision.hit, decision.why) for decision in planner.decisions]


def test_the_second_run_computes_nothing_and_gives_the_same(go: Any) -> None:
    first, hits, calls = go()
    assert (hits, calls) == ([False, False], ["one", "two"])
    second, hits, calls = go()
    assert (hits, calls) == ([True, True], [])
    assert second == first
    assert first.values == {"product": 18}
    assert first.origin["flow_run_id"]


def test_a_late_parameter_reruns_only_what_depends_on_it(go: Any, project: Project, counter: Counter) -> None:
    go()
    assert plan(project, counter, factor=5) == [(True, plan(project, counter)[0][1]), (False, "factor was 2, is 5")]
    result, hits, calls = go(factor=5)
    assert (result.values["product"], hits, calls) == (45, [True, False], ["two"])


def test_an_early_parameter_that_changes_nothing_stops_there(go: Any) -> None:
    """A rerun stage whose result is what it was leaves every later result standing."""
    go(number=3)
    _, hits, calls = go(number=-3)
    assert (hits, calls) == ([False, True], ["one"])


def test_the_plan_says_what_has_never_run_and_what_waits(project: Project, counter: Counter) -> None:
    assert plan(project, counter) == [(False, "never run before"), (False, "waits for one")]
    assert counter.calls == []


@pytest.mark.parametrize("damage", ["delete", "alter"])
def test_a_missing_or_damaged_file_reruns_its_producer(go: Any, project: Project, counter: Counter, damage: str) -> None:
    first, _, _ = go()
    path = project.store.path(project.store.put_json(9))
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"8")
    assert plan(project, counter)[0] == (False, "its file is missing or damaged: square")
    second, hits, calls = go()
    assert (hits, calls) == ([False, True], ["one"])
    assert second == first


def test_what_a_stage_keeps_outside_the_store_is_looked_at(go: Any, project: Project, counter: Counter) -> None:
    go()
    counter.outside = False
    assert plan(project, counter)[0] == (False, "what it made on disk has changed since")
    assert go()[2] == ["one"]


def test_an_unreadable_record_is_a_miss(go: Any, project: Project, counter: Counter) -> None:
    go()
    for record in project.results.glob("two-*"):
        record.write_bytes(b"{")
    assert plan(project, counter)[1] == (False, "its result record cannot be read")
    assert go()[2] == ["two"]


def test_an_error_in_a_stage_reaches_the_caller_and_keeps_nothing(go: Any, project: Project, counter: Counter) -> None:
    counter.two = Stage("two", "Fail", lambda project, one, factor: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        go()
    assert list(project.results.glob("two-*")) == []
    assert len(list(project.results.glob("one-*"))) == 1


def test_prefect_draws_an_edge_from_each_stage_to_those_that_use_its_result(go: Any, counter: Counter) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    go(number=5)
    ours = FlowRunFilter.model_validate({"id": {"any_": counter.flow_runs}})
    with get_client(sync_client=True) as client:
        until = time.monotonic() + 60
        while len(found := {run.name: run for run in client.read_task_runs(flow_run_filter=ours)}) < 2:
            assert time.monotonic() < until, "the server records task runs a moment after they ended"
            time.sleep(0.1)
    drawn = {entry.id for entries in found["two"].task_inputs.values() for entry in entries if entry.input_type == "task_run"}
    assert drawn == {found["one"].id}
