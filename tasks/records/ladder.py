"""Runs the ladder (`megu.promotion.ladder`): each rung is an ordinary run with its own dossier, and an event in the ledger.

A ladder is identified by its configuration. If it is killed, the next run of the same one continues after the rungs in the ledger; what
was under way is in the cache. `end` closes it, so that a later attempt with the same configuration begins from the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megu.config.tree import Config, UnlearnParams
from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.files.store import canonical_json
from megu.core.outages import is_outage
from megu.core.progress import duration, stages
from megu.core.project import Project
from megu.evaluation.summary import Rung, Summary
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import commit
from megu.lineage.dossier import MAIN, RECORDS, sha256
from megu.lineage.promoted.rungs import rung_of
from megu.lineage.record import from_lines
from megu.promotion import ladder
from megu.promotion.ladder import Costs, Step
from megu.requests.request import scrubbed
from tasks.dataset import DATASET
from tasks.original import TRAINED
from tasks.records import record
from tasks.records.lineage import parameters, secret, trained_here
from tasks.reference import REFERENCE
from tasks.run import inputs
from tasks.run.engine import COMPARED, Executor, cached_results, decide
from tasks.unlearn import UNLEARN

#: Carries out the unlearning pipeline: takes configuration, tags and the previous rungs, returns the summary (`flows.unlearn.carry_out`).
CarryOut = Callable[[Project, Config, Mapping[str, str], Sequence[Rung] | None], Summary]

RUNG, SKIPPED, ENDED = "ladder.rung", "ladder.skipped", "ladder.ended"


@dataclass(frozen=True)
class Climb:
    """A ladder that was climbed. name: its subject in the ledger, empty without one. summary: of the last run. refused: why not even the
    exact retrain passes the gate; empty if something passed.
    """

    name: str
    summary: Summary
    refused: str = ""


def steps(config: Config) -> list[Step]:
    """Return the rungs of a configuration."""
    return ladder.steps(config.unlearn.method, config.unlearn.params, config.promotion.ladder, config.seed)


def rung(config: Config, executor: Executor, summary: Summary, number: int) -> Rung:
    """Return a finished run as a rung, before its dossier is signed."""
    assert summary.gate is not None
    return Rung(
        number=number,
        method=config.unlearn.method,
        params={name: value for name, value in config.to_json()["unlearn"].items() if name != "method"},
        outcome=summary.gate.decision,
        says=summary.gate.failures,
        metrics=dict(summary.metrics),
        seconds=summary.flow_seconds,
        compute_seconds=record.spent(executor, "compute_seconds"),
        passes=int(record.spent(executor, "passes")),
        mlflow_run_id=summary.mlflow_run_id,
        version=summary.model_version or "",
    )


def costs(project: Project, config: Config) -> Costs:
    """Return the possible costs of the rungs, from earlier computations with the same data set and recipe; reads only cached results."""
    first = trained_here(config) + config.evaluation.shadows + (not config.original.provided)
    last = int(not trained_here(config))
    data = decide(project, DATASET, "dataset", inputs.dataset(project, config)).cached
    if data is None:
        return Costs(first=first, last=last, methods={})

    def of_data(parts: Mapping[str, Any]) -> bool:
        return bool(parts.get("input data") == data.digest)

    recipe = _recipe(TRAINED.parts({"params": config.train}))
    trained = [
        result
        for stage in (TRAINED, REFERENCE)
        for result in cached_results(project, stage, COMPARED)
        if of_data(result.parts) and _recipe(result.parts) == recipe
    ]
    methods = {
        str(result.parts["method"]): float(result.notes["compute_seconds"])
        for result in reversed(cached_results(project, UNLEARN, COMPARED))
        if of_data(result.parts)
    }
    newest = max(trained, key=lambda result: result.origin["created"], default=None)
    return Costs(training=newest.seconds if newest else None, first=first, last=last, methods=methods)


def _recipe(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if name.startswith("params.")}


def refuse_small_budget(project: Project, config: Config) -> None:
    """Raise `MeguError` if there is a ladder and not even the retrain fits into its budget; computes nothing, and cannot tell before a
    training was measured.
    """
    hours = config.promotion.ladder.hours
    if config.promotion.ladder.when == "never":
        return
    takes = costs(project, config).training
    if takes is not None and takes > 3600 * hours:
        raise MeguError(
            f"promotion.ladder.hours = {hours:g} is less than the retrain at its end takes, about {duration(takes)}",
            f"set it to at least {math.ceil(takes / 36) / 100:g}, or promotion.ladder.when=never",
        )


def plan(project: Project, config: Config) -> list[dict[str, Any]]:
    """Return every rung with the seconds that it will take, None if nothing comparable was measured; computes nothing."""
    planned, known, found, tried = steps(config), costs(project, config), list[dict[str, Any]](), list[Rung]()
    for step in planned:
        why = ladder.skipped(step, planned, tried, known, config.promotion.ladder.hours)
        takes = ladder.expected(step, planned, tried, known)
        row = {"rung": step.number, "method": step.method, "drawn": dict(step.drawn), "seconds": takes, "skipped": why}
        found.append(row)
        if not why and takes is not None:
            trainings = known.first if not tried else 0
            tried.append(_planned(step, takes, max(takes - trainings * (known.training or 0.0), 0.0)))
    return found


def _planned(step: Step, seconds: float, compute_seconds: float) -> Rung:
    """Return a rung as if it had run and failed."""
    made: dict[str, Any] = {"number": step.number, "method": step.method, "params": {}, "outcome": "fail", "says": []}
    return Rung(**made, seconds=seconds, compute_seconds=compute_seconds, mlflow_run_id="planned")


def climb(project: Project, config: Config, tags: Mapping[str, str], carry_out: CarryOut, *, batch: str = "") -> Climb:
    """Try one rung after the other until one passes the gate. batch: the batch of requests that it is for, empty without.

    Raises `MeguError` as `refuse_small_budget` does, errors of the first and the last rung, and any outage; any other rung that fails
    by itself is left out, with the reason.
    """
    refuse_small_budget(project, config)
    planned, known, budget = steps(config), costs(project, config), config.promotion.ladder.hours
    name = f"c{commit(secret(project), canonical_json(parameters(config, secret(project)))).hex()[:16]}"
    done, common = _open(project, name), {"of": len(planned), "batch": batch}
    tried: list[Rung] = []
    beyond: list[str] = []
    _say_plan(planned, known, budget, len(done))

    def leave_out(step: Step, outcome: str, why: str) -> None:
        left = Rung(number=step.number, method=step.method, params={}, outcome=outcome, says=[why])
        tried.append(left)
        stages().note(ladder.describe(left))
        if step.number not in done:
            facts = {"number": step.number, "method": step.method, "outcome": outcome, "why": why, **common}
            project.ledger.append(SKIPPED, name, facts)

    for step in planned:
        before, last = done.get(step.number), step is planned[-1]
        if before is not None and (found := _again(project, before)) is not None and not last and found.outcome not in PASSED:
            tried.append(found)
            beyond = list(before.facts.get("beyond", beyond))
            continue
        if beyond and not last:
            leave_out(step, "skipped", f"no method mends what failed: {', '.join(beyond)}")
            continue
        if why := ladder.skipped(step, planned, tried, known, budget):
            leave_out(step, "skipped", why)
            continue
        takes = ladder.expected(step, planned, tried, known)
        stages().note(f"rung {step.number} of {len(planned)}: {step}{'' if takes is None else f', about {duration(takes)}'}")
        try:
            own = config.model_copy(update={"unlearn": UnlearnParams(step.method, step.params)})
            summary = carry_out(
                project, own, {**tags, "ladder": name, "ladder.rung": f"{step.number} of {len(planned)}"}, tried
            )
        except Exception as error:
            if last or step.number == 1 or is_outage(error):
                raise
            leave_out(step, "error", scrubbed(f"{type(error).__name__}: {error}", _names(config)))
            continue
        assert summary.gate is not None
        sealed = sha256((project.dossiers / summary.mlflow_run_id / MAIN).read_bytes())
        made = replace(summary.ladder[-1], seal=sealed)
        tried.append(made)
        known = costs(project, config)
        broken = [rule for rule in summary.gate.rules if rule.holds is False]
        beyond = [rule.rule for rule in broken if rule.of_any_model]
        facts = {**ladder.facts(made), **common, "broken": [rule.rule for rule in broken], "beyond": beyond}
        project.ledger.append(RUNG, name, facts)
        stages().note(ladder.describe(made))
        if made.outcome != "fail":
            return Climb(name, summary)
    rules = ", ".join(rule.rule for rule in broken)
    version = made.version.removeprefix("models:/") or "not registered"
    return Climb(name, summary, f"the gate turned down even the exact retrain ({version}): {rules}")


def end(project: Project, done: Climb) -> None:
    """Close a ladder whose outcome is recorded."""
    if done.name:
        outcome = "refused" if done.refused else "passed"
        project.ledger.append(ENDED, done.name, {"outcome": outcome, "version": done.summary.model_version or ""})


def said(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the rungs among these ledger events, as JSON."""
    return [{"ladder": event.subject, **event.facts} for event in events if event.kind in (RUNG, SKIPPED)]


def progressed(project: Project, batch: str, since: int) -> bool:
    """Whether a rung of a batch was finished after the event with this number."""
    return any(event.number > since and event.facts.get("batch") == batch for event in project.ledger.events(kind=RUNG))


#: Outcomes after which nothing more is tried.
PASSED = ("pass", "needs a person", "passes without a retrain")


def _open(project: Project, name: str) -> dict[int, Event]:
    """Return the newest event of each rung since the ladder was last closed, by number."""
    found: dict[int, Event] = {}
    for event in project.ledger.events(name):
        if event.kind == ENDED:
            found = {}
        else:
            found[int(event.facts["number"])] = event
    return found


def _again(project: Project, event: Event) -> Rung | None:
    """Return the rung of an event, from the dossier of its run; None if that has changed."""
    facts = event.facts
    if event.kind == SKIPPED:
        return Rung(number=facts["number"], method=facts["method"], params={}, outcome=facts["outcome"], says=[facts["why"]])
    try:
        files = folder_of.read(project.dossiers / str(facts["mlflow_run_id"]))
        if (seal := sha256(files[MAIN])) != facts["seal"]:
            return None
        return rung_of(folder_of.parse(files[MAIN], MAIN), from_lines(files[RECORDS], RECORDS), seal)
    except (MeguError, OSError, KeyError, IndexError):
        return None


def _names(config: Config) -> dict[str, Any]:
    return {name: getattr(config.forget, name) for name in ("classes", "subclasses", "ids", "files")}


def _say_plan(planned: Sequence[Step], known: Costs, hours: float, done: int) -> None:
    training = "not known before the first one" if known.training is None else f"about {duration(known.training)}"
    stages().note(
        f"ladder: {len(planned)} rungs at most within {hours:g} h, the last one the exact retrain ({training} a training)"
        + (f"; {done} are done" if done else "")
    )
