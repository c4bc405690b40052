"""Runs stages as Prefect tasks over Prefect's result cache, or only says what running them would do.

A flow calls ``run(STAGE, name=value, …)`` for each step. With an `Executor` that is a Prefect task run; with a `Planner` it is a
look into the cache. Both decide alike (`decide`), so the plan that is shown is the plan that is carried out.

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

from prefect import Task, task
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

#: With so many kept results, the newest, a stage that has to run is compared to say why: a benchmark leaves hundreds of each stage.
COMPARED = 30


@dataclass(frozen=True)
class Decision:
    """Whether a stage has to run. ``cached`` is the result that will be used when it does not; ``why`` is for a person."""

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
    """What a flow's wiring is written against."""

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Any: ...


def decide(project: Project, stage: Stage, label: str, arguments: dict[str, Any]) -> Decision:
    """Look for the kept result of ``stage`` with these arguments, its files checked."""
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
    """The parts of a key as they are kept: with commitments in the place of sample ids. No key is made where none is needed."""
    if not any(parts.get(name) for name in PRIVATE):
        return dict(parts)
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    return redact_parts(parts, key)


def read_record(project: Project, key: str) -> Result | None:
    """The kept result under ``key``; None when there is none, or it is not one of ours in the present format."""
    try:
        value: dict[str, Any] = ResultRecord.deserialize((project.results / key).read_bytes()).result
        return Result.from_json(value) if value.get("format") == FORMAT else None
    except Exception:  # whatever is wrong with the record, the stage can run again
        return None


def cached_results(project: Project, stage: Stage, most: int | None = None) -> list[Result]:
    """Every readable result of a stage, newest first; ``most`` of them at most."""
    records = sorted(project.results.glob(f"{stage.name}-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    found = (read_record(project, path.name) for path in records if path.name.rsplit("-", 1)[0] == stage.name)
    return list(islice((result for result in found if result is not None), most))


@dataclass
class Planner:
    """Says what a run would do. Stages behind a miss cannot be named yet; they are said to wait for it."""

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
    """The values, and those inside lists among them."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _entries(list(value))
        else:
            yield value


@dataclass(frozen=True)
class Ran:
    """One finished step of a run: ``seconds`` is what it took now, which for a hit is the time of looking it up. ``parents``: the labels
    of the steps whose results it was given."""

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
    """Runs each stage as a Prefect task, tells `megu.core.progress.stages` of it, and keeps count. Must be called inside a flow run.

    origin: what every result that is computed in this run remembers of it (its MLflow run, say).
    refresh: names of stages that run again though their result is kept (to measure them, say).
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
        # A kept result may have been made under another label (a retrain that is now the second of three).
        seconds = time.perf_counter() - started
        parents = tuple(ran.decision.label for ran in self.ran if any(entry is ran.result for entry in given))
        self.ran.append(Ran(decision, result, seconds, parents))
        stages().stage_ends(decision.label, hit=decision.hit, seconds=seconds, says=stage.says(result))
        return result

    def __getitem__(self, label: str) -> Ran:
        return next(ran for ran in self.ran if ran.decision.label == label)

    @property
    def edges(self) -> list[Any]:
        """To every stage so far, for a task's ``wait_for``."""
        return _edges(ran.result for ran in self.ran)


def _edges(results: Iterable[Result]) -> list[Any]:
    """What Prefect knows the task runs by that returned these: the smallest part of each, since it looks through all of it."""
    return [result.origin for result in results]


def _key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
    key: str = arguments["decision"].key
    return key


@cache
def prefect_task(stage: Stage) -> Task[..., dict[str, Any]]:
    """The Prefect task of a stage, with our key and JSON results."""

    def compute(
        decision: Decision, arguments: dict[str, Any], origin: dict[str, str], threads: int | None = None
    ) -> dict[str, Any]:
        started = time.perf_counter()
        if threads:  # of a worker beside others; it may be another process than the one that asked
            import torch

            torch.set_num_threads(threads)
        # What draws from the process-wide generators (a plugin, say) depends on the key like all else, not on what ran before.
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
