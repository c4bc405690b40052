"""The ladder: what is tried, and in what order, until the gate lets a model pass, and whether a rung still fits into the budget.

First comes the configured method as it is, then the same with its main parameters drawn, then likewise each method listed, and finally the
exact retrain, which is never skipped. Pure: `tasks.records.ladder` runs the rungs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from megu.core.progress import duration
from megu.core.seeds import derive
from megu.evaluation.summary import Rung
from megu.promotion.params import RETRAIN, LadderParams
from megu.unlearning.methods import lookup

#: Draws after which the search for untried parameters is given up: those of a few epochs have few values.
_DRAWS = 50


@dataclass(frozen=True)
class Step:
    """A planned rung. number: from 1. params: the method's. drawn: those that were drawn, by name. cost: its duration as a multiple of that
    with the method's unchanged parameters."""

    number: int
    method: str
    params: Any
    drawn: Mapping[str, float]
    cost: float = 1.0

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value:.3g}" for name, value in self.drawn.items())
        return f"{self.method}{f' with {said}' if said else ''}"


def steps(method: str, params: Any, ladder: LadderParams, seed: int) -> list[Step]:
    """Return every rung of a ladder. method, params: the configured ones, tried first. seed: the run's; the same seed draws the same
    parameters.

    Raises `MeguError` for a plugin that cannot be used.
    """
    tried = [] if method == RETRAIN else [method, *(name for name in ladder.methods if name != method)]
    found: list[Step] = []
    for name in tried:
        own = params if name == method else lookup(name).params()
        found.append(Step(len(found) + 1, name, own, {}))
        found += _drawn(name, own, ladder.trials - 1, len(found) + 1, seed)
    last = params if method == RETRAIN else lookup(RETRAIN).params()
    return [*found, Step(len(found) + 1, RETRAIN, last, {})]


def _drawn(method: str, base: Any, count: int, first: int, seed: int) -> Iterator[Step]:
    """Yield up to ``count`` rungs whose parameters differ from ``base`` and from each other. first: the number of the first one."""
    spans, known = lookup(method).main, [base]
    for number in range(first, first + count if spans else first):
        for draw in range(_DRAWS):
            chance = random.Random(derive(seed, "ladder", number, draw))
            values = {name: span.at(getattr(base, name), chance.random()) for name, span in spans.items()}
            params = replace(base, **values)
            if params not in known:
                break
        else:
            return
        known.append(params)
        cost = 1.0
        for name in (name for name, span in spans.items() if span.costs and getattr(base, name)):
            cost *= values[name] / getattr(base, name)
        yield Step(number, method, params, values, cost)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is known about costs before a ladder begins, from what was computed here earlier.

    training: seconds of a training, None if there has been none. first: trainings that the first run needs whatever its method (original,
    retrains, shadows). last: those that the retrain at the end needs, once there was a run: 0 where it is the reference. methods: seconds
    of each method that was run before.
    """

    training: float | None = None
    first: int = 0
    last: int = 1
    methods: Mapping[str, float]


def expected(step: Step, planned: Sequence[Step], tried: Sequence[Rung], costs: Costs) -> float | None:
    """Return the seconds that a rung will take, None where nothing like it was measured. planned: every rung; tried: those before it.

    A method that was never run here is assumed to cost one training: one that costs more is not worth it.
    """
    ran = [rung for rung in tried if rung.ran]
    trainings = 0 if ran else costs.first
    if step.method == RETRAIN:
        trainings += costs.last
        base: float | None = 0.0
    else:
        own = [rung.compute_seconds / planned[rung.number - 1].cost for rung in ran if rung.method == step.method]
        base = own[-1] if own else costs.methods.get(step.method, costs.training)
    if base is None or (trainings and costs.training is None):
        return None
    return base * step.cost + trainings * (costs.training or 0.0) + _beside(ran, costs)


def _beside(ran: Sequence[Rung], costs: Costs) -> float:
    """Return the seconds that a run takes besides trainings and its method, as in the quickest run so far."""
    first = costs.first * (costs.training or 0.0)
    return min(
        (max(rung.seconds - rung.compute_seconds - (0 if at else first), 0.0) for at, rung in enumerate(ran)), default=0.0
    )


def skipped(step: Step, planned: Sequence[Step], tried: Sequence[Rung], costs: Costs, hours: float) -> str:
    """Return why a rung does not fit into the rest of the budget, with time reserved for the retrain at the end; empty where it fits, where
    this is not known, and for the retrain itself."""
    if step is planned[-1] or (takes := expected(step, planned, tried, costs)) is None:
        return ""
    left = 3600 * hours - sum(rung.seconds for rung in tried)
    retrain = costs.last * (costs.training or 0.0) + _beside([rung for rung in tried if rung.ran], costs)
    if takes + retrain <= left:
        return ""
    return (
        f"it would take about {duration(takes)}, and of the {hours:g} h (promotion.ladder.hours) "
        f"{duration(max(left, 0.0))} are left, {duration(retrain)} of them for the retrain"
    )


def describe(rung: Rung) -> str:
    """Describe a finished rung: what it was and how it ended."""
    said = f": {'; '.join(rung.says)}" if rung.says else ""
    took = f" ({duration(rung.seconds)})" if rung.ran else ""
    return f"{rung.number}. {rung.method}, {rung.outcome}{took}{said}"


def facts(rung: Rung) -> dict[str, Any]:
    """Return a rung as a ledger may store it: without the gate's sentences, which may name classes."""
    return {name: value for name, value in asdict(rung).items() if name not in ("params", "metrics", "says")}
