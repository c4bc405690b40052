"""The ladder: what is tried, and in what order, until the gate lets a model pass; whether a rung still fits into the budget.

First the configured method as it is, then with its main parameters drawn, then the same of each method listed, at last the exact retrain,
which is never skipped. Pure: `tasks.records.ladder` runs the rungs.
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

#: Draws after which parameters that were tried already are given up: those of a few epochs have few values.
_DRAWS = 50


@dataclass(frozen=True)
class Step:
    """A rung as it is planned. number: from 1. params: the method's. drawn: those that were drawn, by name. cost: how many times as long it
    takes as with the method's parameters as they are."""

    number: int
    method: str
    params: Any
    drawn: Mapping[str, float]
    cost: float = 1.0

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value:.3g}" for name, value in self.drawn.items())
        return f"{self.method}{f' with {said}' if said else ''}"


def steps(method: str, params: Any, ladder: LadderParams, seed: int) -> list[Step]:
    """Every rung of a ladder. method, params: the configured ones, tried first. seed: the run's; the same seed draws the same parameters.

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
    """``count`` rungs with other parameters than ``base`` and each other, as far as there are so many. first: the first one's number."""
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
    """What is known of costs before a ladder begins, from what was computed here earlier.

    training: seconds of a training, None before there was one. first: trainings that the first run needs whatever its method is (original,
    retrains, shadows). last: those that the retrain at the end needs, once there was a run: 0 where it is the reference. methods: seconds of
    each method that was run before.
    """

    training: float | None = None
    first: int = 0
    last: int = 1
    methods: Mapping[str, float]


def expected(step: Step, planned: Sequence[Step], tried: Sequence[Rung], costs: Costs) -> float | None:
    """Seconds that a rung will take, None where nothing like it was measured. planned: every rung; tried: those before it.

    A method that was never run here is taken to cost a training: one that costs more is worth nothing.
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
    """Seconds that a run takes beside trainings and its method, as the quickest so far did."""
    first = costs.first * (costs.training or 0.0)
    return min(
        (max(rung.seconds - rung.compute_seconds - (0 if at else first), 0.0) for at, rung in enumerate(ran)), default=0.0
    )


def skipped(step: Step, planned: Sequence[Step], tried: Sequence[Rung], costs: Costs, hours: float) -> str:
    """Why a rung does not fit into what is left of the budget, with time kept for the retrain at the end; empty where it does, where nobody
    knows, and for the retrain itself."""
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
    """A rung that is done, for a person: what it was and what came of it."""
    said = f": {'; '.join(rung.says)}" if rung.says else ""
    took = f" ({duration(rung.seconds)})" if rung.ran else ""
    return f"{rung.number}. {rung.method}, {rung.outcome}{took}{said}"


def facts(rung: Rung) -> dict[str, Any]:
    """A rung as a ledger may have it: without the gate's sentences, which may name classes."""
    return {name: value for name, value in asdict(rung).items() if name not in ("params", "metrics", "says")}
