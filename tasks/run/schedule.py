"""Many runs of one wiring at once, each stage computed once however many of them need it.

A run is inspected as by the planner, stage by stage, until a missing stage can be computed now; that is submitted under
its cache key, and the run is inspected again when the result is there. A key that is under way is never submitted a second time, so runs
that share an original or a retrain wait for the same one, on any number of workers, without a lock. With one worker the runs are
processed one after the other.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

from megu.core.errors import MeguError
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Result, Stage
from tasks.run.engine import Decision, Ran, decide, prefect_task, report

T = TypeVar("T", bound=Hashable)
Wiring = Callable[[Any], Any]


class Awaited(Result):
    """Placeholder for a result that does not exist yet; its digest is that of its future key, as far as known."""

    @classmethod
    def of(cls, stage: Stage, key: str) -> Awaited:
        return cls(stage=stage.name, parts={}, files={}, values={"awaited": key}, notes={}, seconds=0.0, origin={})


@dataclass
class Found:
    """What is known so far, by key: results, why a stage has to run, and the error of one that failed.

    A cached result's files are hashed on first use and not again: nothing else writes here while this runs.
    """

    results: dict[str, Ran] = field(default_factory=dict)
    misses: dict[str, Decision] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A stage of a run that has no result yet. ready: all its inputs exist; otherwise its key is not the final one."""

    decision: Decision
    arguments: dict[str, Any]
    ready: bool


@dataclass
class Inspection:
    """One pass along a run's wiring; give it to the wiring as its ``run``. Computes nothing.

    ran: the stages whose results exist. missing: the others in order. error: of the first stage that failed.
    """

    project: Project
    found: Found
    ran: list[Ran] = field(default_factory=list)
    missing: list[Step] = field(default_factory=list)
    error: str | None = None

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Result:
        label, bound = label or stage.name, stage.bind(self.project, arguments)
        parts = stage.parts(bound)
        key = stage.key(parts)
        if _awaits(arguments):
            self.missing.append(Step(Decision(stage, label, key, parts, None, "waits"), bound, ready=False))
            return Awaited.of(stage, key)
        if key not in self.found.results and key not in self.found.misses:
            decision = decide(self.project, stage, label, arguments)
            if decision.cached:
                self.found.results[key] = Ran(decision, decision.cached, 0.0)
            else:
                self.found.misses[key] = decision
        if found := self.found.results.get(key):
            self.ran.append(Ran(_named(found.decision, label), found.result, found.seconds))
            return found.result
        if key in self.found.failed:
            self.error = self.error or f"{label}: {self.found.failed[key]}"
        self.missing.append(Step(_named(self.found.misses[key], label), bound, ready=True))
        return Awaited.of(stage, key)

    def __getitem__(self, label: str) -> Ran:
        return next(ran for ran in self.ran if ran.decision.label == label)


def _named(decision: Decision, label: str) -> Decision:
    """Return the same decision under its label in this run (a retrain that is the second of three, say)."""
    return Decision(decision.stage, label, decision.key, decision.parts, decision.cached, decision.why)


def _awaits(arguments: Mapping[str, Any]) -> bool:
    return any(
        isinstance(entry, Awaited)
        for value in arguments.values()
        for entry in (value if isinstance(value, (list, tuple)) else (value,))
    )


@dataclass
class Scheduler:
    """Runs wirings. Must be used inside a flow run; with more than one slot that flow's task runner computes.

    slots: stages under way at once. threads: PyTorch's in each worker (None: unchanged).
    origin: what every computed result records.
    """

    project: Project
    slots: int = 1
    threads: int | None = None
    submitting: bool = False
    origin: dict[str, str] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    computed: list[Ran] = field(default_factory=list)
    _under_way: dict[str, tuple[Decision, PrefectFuture[Any], float]] = field(default_factory=dict)
    _done: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def inspect(self, wiring: Wiring) -> Inspection:
        inspection = Inspection(self.project, self.found)
        wiring(inspection)
        return inspection

    def run(self, wirings: Mapping[T, Wiring]) -> Iterator[tuple[T, Inspection]]:
        """Carry out every wiring; yield each with its last inspection when it is finished: all its results, or its error."""
        left = dict(wirings)
        blocked: dict[T, set[str]] = {}
        while left:
            for name in list(left):
                if len(self._under_way) >= self.slots:
                    break
                if blocked.get(name, set()) & self._under_way.keys():
                    continue
                inspection = self._advance(left[name])
                if inspection.error or not inspection.missing:
                    del left[name]
                    yield name, inspection
                    continue
                ready = {step.decision.key for step in inspection.missing if step.ready}
                blocked[name] = ready if ready <= self._under_way.keys() else set()
            if self._under_way:
                self._settle(self._done.get())

    def _advance(self, wiring: Wiring) -> Inspection:
        """Submit what a run is waiting for; without workers compute it here, until the run is finished."""
        while True:
            inspection = self.inspect(wiring)
            ready = [step for step in inspection.missing if step.ready and step.decision.key not in self._under_way]
            if inspection.error or not ready:
                return inspection
            if self.submitting:
                for step in ready:
                    if len(self._under_way) < self.slots and step.decision.key not in self._under_way:
                        self._submit(step)
                return inspection
            self._compute(ready[0])

    def _submit(self, step: Step) -> None:
        decision = step.decision
        future = self._task(decision).submit(decision, step.arguments, self.origin, self.threads)
        self._under_way[decision.key] = (decision, future, time.perf_counter())
        future.add_done_callback(lambda _: self._done.put(decision.key))

    def _settle(self, key: str) -> None:
        decision, future, started = self._under_way.pop(key)
        self._keep(decision, started, future.result)

    def _compute(self, step: Step) -> None:
        decision = step.decision
        stages().stage_starts(decision.label, decision.stage.title)
        self._keep(
            decision,
            time.perf_counter(),
            lambda: self._task(decision)(decision, step.arguments, self.origin, self.threads),
        )

    def _task(self, decision: Decision) -> Any:
        # A record that decide() refused (its files are gone) would still be a hit to Prefect.
        return prefect_task(decision.stage).with_options(
            task_run_name=decision.label, refresh_cache=True, result_storage=self.project.results
        )

    def _keep(self, decision: Decision, started: float, compute: Callable[[], Any]) -> None:
        """Store the result, or the error of a stage; an error affects only the runs that need this stage."""
        try:
            result = Result.from_json(compute())
        except Exception as error:
            self.found.failed[decision.key] = said = in_one_line(error)
            report(decision.label, hit=False, seconds=time.perf_counter() - started, says=f"FAILED: {said}")
            return
        ran = Ran(decision, result, time.perf_counter() - started)
        self.found.results[decision.key] = ran
        self.computed.append(ran)
        report(decision.label, hit=False, seconds=ran.seconds, says=decision.stage.says(result))


def in_one_line(error: BaseException) -> str:
    """Return what went wrong, without the exception's class if the user can fix it."""
    said = " ".join(str(error).split())
    return said if isinstance(error, MeguError) else f"{type(error).__name__}: {said}" if said else type(error).__name__


def outstanding(project: Project, wirings: Mapping[T, Wiring]) -> tuple[dict[str, Decision], dict[str, Decision]]:
    """Return the distinct stages of all runs that are cached and that would run, by key. Computes nothing.

    The key behind a stage that has to run is not known yet; such stages are distinguished by their inputs, so fewer may actually
    run (a stage whose result is unchanged spares those after it).
    """
    known = Found()
    kept: dict[str, Decision] = {}
    missing: dict[str, Decision] = {}
    for wiring in wirings.values():
        inspection = Inspection(project, known)
        wiring(inspection)
        kept.update({ran.decision.key: ran.decision for ran in inspection.ran})
        missing.update({step.decision.key: step.decision for step in inspection.missing})
    return kept, missing
