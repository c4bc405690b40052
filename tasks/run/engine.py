"""Runs stages as Prefect tasks over Prefect's result cache, or only plans what running them would do.

A flow calls ``run(STAGE, name=value, …)`` for each step. With an `Executor` that is a Prefect task run; with a `Planner` it is a
cache lookup. Both decide alike (`decide`), so the plan that is shown is the plan that is carried out.

The cache is Prefect's: a result record under our own key (`megu.core.stages`). Isolation stays at Prefect's default, READ_COMMITTED; its
file locks never expire after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, Protocol

from prefect import Task, get_run_logger, task
from prefect.context import TaskRunContext
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.runtime import flow_run

from megu.core.files.exclusion import working
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.seeds import derive, start
from megu.core.stages import FORMAT, PRIVATE, Result, Stage, nearest
from megu.lineage.commitments import redact_parts
from megu.lineage.keys import Keys
from tasks.prefect.arguments import as_is

#: A stage that has to run is compared with this many of its newest cached results to explain why: a benchmark leaves hundreds.
COMPARED = 30


@dataclass(frozen=True)
class Decision:
    """Whether a stage has to run. ``cached`` is the result to use if it does not; ``why`` is for a person."""

    stage: Stage
    label: str
    key: str
    parts: dict[str, Any]
    cached: Result | None
    why: str

    @property
    def hit(self) -> bool:
        return self.cached is not None


@dataclass(frozen=True)
class Pending:
    """Stands for a result that does not exist yet, while planning."""

    label: str


class Run(Protocol):
    """The interface that a flow's wiring is written against."""

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Any: ...


def decide(project: Project, stage: Stage, label: str, arguments: dict[str, Any]) -> Decision:
    """Look up the cached result of ``stage`` with these arguments, and check its files."""
    parts = stage.parts(stage.bind(project, arguments))
    key = stage.key(parts)
    record = project.results / key
    if not record.exists():
        changes = nearest(redact(project, parts), [other.parts for other in cached_results(project, stage, COMPARED)])
        why = (
            "never run before"
            if changes is None
            else "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
        )
        return Decision(stage, label, key, parts, None, why)
    kept = read_record(project, key)
    if kept is None:
        return Decision(stage, label, key, parts, None, "its result record cannot be read")
    damaged = [name for name, ref in kept.files.items() if not project.store.holds(ref)]
    if damaged:
        return Decision(stage, label, key, parts, None, f"its file is missing or damaged: {', '.join(damaged)}")
    if not stage.intact(project, kept):
        return Decision(stage, label, key, parts, None, "what it made on disk has changed since")
    return Decision(stage, label, key, parts, kept, f"nothing changed since {kept.origin.get('created', 'it ran')}")


def redact(project: Project, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a key as they are stored: with commitments instead of sample ids. Create no key if none is needed."""
    if not any(parts.get(name) for name in PRIVATE):
        return dict(parts)
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    return redact_parts(parts, key)


def read_record(project: Project, key: str) -> Result | None:
    """Return the cached result under ``key``; None if there is none, or it is not one of ours in the present format."""
    try:
        value: dict[str, Any] = ResultRecord.deserialize((project.results / key).read_bytes()).result
        return Result.from_json(value) if value.get("format") == FORMAT else None
    except Exception:  # whatever is wrong with the record, the stage can be run again
        return None


def cached_results(project: Project, stage: Stage, most: int | None = None) -> list[Result]:
    """Return every readable result of a stage, newest first; at most ``most`` of them."""
    records = sorted(project.results.glob(f"{stage.name}-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    found = (read_record(project, path.name) for path in records if path.name.rsplit("-", 1)[0] == stage.name)
    return list(islice((result for result in found if result is not None), most))


@dataclass
class Planner:
    """Plans a run without computing. The keys of stages behind a miss are not known yet; their plan says what they wait for."""

    project: Project
    decisions: list[Decision] = field(default_factory=list)

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Result | Pending:
        label = label or stage.name
        entries = _entries(list(arguments.values()))
        waits = sorted({entry.label for entry in entries if isinstance(entry, Pending)})
        if waits:
            decision = Decision(stage, label, "", {}, None, f"waits for {', '.join(waits)}")
        else:
            decision = decide(self.project, stage, label, arguments)
        self.decisions.append(decision)
        return decision.cached if decision.cached else Pending(label)


def _entries(values: list[Any]) -> Iterator[Any]:
    """Yield the values, and those inside lists among them."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _entries(list(value))
        else:
            yield value


@dataclass(frozen=True)
class Ran:
    """One finished step of a run: ``seconds`` is its duration in this run, which for a hit is the time of the lookup. ``parents``: the
    labels of the steps whose results it used."""

    decision: Decision
    result: Result
    seconds: float
    parents: tuple[str, ...] = ()


class Finished(Protocol):
    """A run whose stages are done."""

    ran: list[Ran]

    def __getitem__(self, label: str) -> Ran: ...


@dataclass
class Executor:
    """Runs each stage as a Prefect task, reports it to `megu.core.progress.stages`, and records it. Must be called inside a flow run.

    origin: what every result computed in this run records about it (its MLflow run, say).
    refresh: names of stages that run again even if their result is cached (to measure them, say).
    """

    project: Project
    ran: list[Ran] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    refresh: frozenset[str] = frozenset()

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Result:
        started = time.perf_counter()
        decision = decide(self.project, stage, label or stage.name, arguments)
        if stage.name in self.refresh:
            decision = replace(decision, cached=None, why="asked to run again")
        if not decision.hit:
            stages().stage_starts(decision.label, stage.title)
        # A record that decide() refused (its files are gone) would still be a hit to Prefect.
        step = prefect_task(stage).with_options(
            task_run_name=decision.label, refresh_cache=not decision.hit, result_storage=self.project.results
        )
        given = list(_entries(list(arguments.values())))
        inputs = _edges(entry for entry in given if isinstance(entry, Result))
        bound = stage.bind(self.project, arguments)
        result = Result.from_json(step(as_is(decision), as_is(bound), as_is(self.origin), wait_for=inputs))
        # A cached result may have been made under another label (a retrain that is now the second of three).
        seconds = time.perf_counter() - started
        parents = tuple(ran.decision.label for ran in self.ran if any(entry is ran.result for entry in given))
        self.ran.append(Ran(decision, result, seconds, parents))
        report(decision.label, hit=decision.hit, seconds=seconds, says=stage.says(result))
        return result

    def __getitem__(self, label: str) -> Ran:
        return next(ran for ran in self.ran if ran.decision.label == label)

    @property
    def edges(self) -> list[Any]:
        """Return edges to every stage so far, for a task's ``wait_for``."""
        return _edges(ran.result for ran in self.ran)


def report(label: str, *, hit: bool, seconds: float, says: str) -> None:
    """Tell the listener to stages and the flow run's log that a stage ended, and what came of it."""
    stages().stage_ends(label, hit=hit, seconds=seconds, says=says)
    get_run_logger().info("%s: %s%s", label, says, " (cached)" if hit else "")


def _edges(results: Iterable[Result]) -> list[Any]:
    """Return what identifies to Prefect the task runs that returned these: the smallest part of each, since Prefect searches all of
    it."""
    return [result.origin for result in results]


def _key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
    key: str = arguments["decision"].key
    return key


@cache
def prefect_task(stage: Stage) -> Task[..., dict[str, Any]]:
    """Return the Prefect task of a stage, with our key and JSON results."""

    def compute(
        decision: Decision, arguments: dict[str, Any], origin: dict[str, str], threads: int | None = None
    ) -> dict[str, Any]:
        started = time.perf_counter()
        if threads:  # of one worker among several; it may be in another process than the caller
            import torch

            torch.set_num_threads(threads)
        # Draws from the process-wide generators (by a plugin, say) depend on the key like everything else, not on what ran before.
        start(derive(0, decision.key))
        with working(arguments["project"]):  # of a worker, which may outlive its flow
            outcome = stage.run(decision.key, arguments)
        return Result(
            stage=stage.name,
            parts=redact(arguments["project"], decision.parts),
            files=outcome.files,
            values=outcome.values,
            notes=outcome.notes,
            seconds=time.perf_counter() - started,
            origin={
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "flow_run_id": flow_run.get_id() or "",
                **origin,
            },
        ).to_json()

    decorate = task(name=stage.name, description=stage.title, cache_key_fn=_key, persist_result=True, result_serializer="json")
    return decorate(compute)
