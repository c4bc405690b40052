"""Which method comes nearest to the retrain: over all targets, and where another method beats the overall first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from megu.bench.scores import CellScore, finished
from megu.bench.table import lines_of
from megu.core.escaping import markdown as text
from megu.evaluation import HEADLINE

#: The method that is the reference itself, with a gap of 0 to it.
ITSELF = "retrain"

Name = tuple[str, str]


@dataclass(frozen=True)
class Place:
    """A method on one target, or over all. gap: its mean, in points. parts: the mean absolute difference of each metric in it."""

    method: str
    gap: float
    parts: Mapping[str, float]

    @property
    def most(self) -> str:
        """The metric that contributes most to the gap."""
        return max(self.parts, key=lambda name: self.parts[name])


def places(marks: Sequence[CellScore], target: str | None = None) -> list[Place]:
    """Return the methods (and swept values) by their mean gap, the nearest to the retrain first; the retrain itself is left out."""
    named: dict[Name, list[CellScore]] = {}
    for mark in finished(marks):
        known = "gap" in mark.comparison and all(name in mark.unlearned and name in mark.reference for name in HEADLINE)
        if known and mark.algorithm != ITSELF and target in (None, mark.target):
            named.setdefault((mark.method, mark.point), []).append(mark)
    found = [
        Place(
            " ".join(filter(None, name)),
            fmean(mark.comparison["gap"] for mark in own),
            {metric: fmean(abs(mark.unlearned[metric] - mark.reference[metric]) for mark in own) for metric in HEADLINE},
        )
        for name, own in named.items()
    ]
    return sorted(found, key=lambda place: place.gap)


def markdown(marks: Sequence[CellScore]) -> str:
    """Write the overall order in one sentence, and a table by target; "" where fewer than two methods can be compared."""
    over_all = places(marks)
    if len(over_all) < 2:
        return ""
    first, second = over_all[:2]
    said = (
        f"Nearest to the retrain over all: **{text(first.method)}**, {first.gap:.2f} points; then {text(second.method)}, {second.gap:.2f}. "
        "*Most of it*: the metric that makes the largest part of that gap."
    )
    head = ["target", "nearest", "gap", f"place of {first.method}", "its gap", "most of it"]
    body = []
    for target in dict.fromkeys(mark.target for mark in marks):
        own = places(marks, target)
        place = next((number for number, one in enumerate(own, 1) if one.method == first.method), None)
        if place is None:
            continue
        mine = own[place - 1]
        most = f"{mine.most}, {mine.parts[mine.most]:.1f} points off"
        body.append([target, own[0].method, f"{own[0].gap:.2f}", f"{place} of {len(own)}", f"{mine.gap:.2f}", most])
    return f"{said}\n\n{lines_of(head, body)}"
