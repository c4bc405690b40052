"""Variants of a method compared with one of them, target by target and seed by seed. Both have the same original and the same retrain, so
their difference is the effect of the variant alone, however far the targets are from each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from megu.bench.scores import CellScore, finished
from megu.bench.table import Row, spread

#: What is compared (smaller is nearer to the retrain): number, title, unit, digits.
MEASURES = (("gap", "gap", "points", 2), ("Ar_off", "Ar off the retrain's", "points", 2), ("JS_forget", "JS", "nats", 4))


def with_distances(marks: Sequence[CellScore]) -> list[CellScore]:
    """Return the scores with ``Ar_off`` among their comparisons: the distance of Ar from the retrain's in points, whichever is higher."""
    return [
        replace(mark, comparison={**mark.comparison, "Ar_off": abs(mark.unlearned["Ar"] - mark.reference["Ar"])})
        if "Ar" in mark.unlearned and "Ar" in mark.reference
        else mark
        for mark in marks
    ]


def differences(marks: Sequence[CellScore], method: str, against: str) -> list[dict[str, float]]:
    """Return ``method`` minus ``against``, for every number that both have and each pair of target and seed that both finished."""
    found = {(mark.method, mark.target, mark.seed): mark.numbers() for mark in finished(marks)}
    return [
        {name: value - other[name] for name, value in own.items() if name in other}
        for (label, target, seed), own in found.items()
        if label == method and (other := found.get((against, target, seed)))
    ]


def rows(marks: Sequence[CellScore], against: Mapping[str, str]) -> list[Row]:
    """Return a row for each method of ``against`` (method -> the one that it is compared with) that has a pair: the differences' means and
    95% t intervals over n pairs."""
    pairs = {method: differences(marks, method, other) for method, other in against.items()}
    return [Row("", method, "", spread(entries), len(entries)) for method, entries in pairs.items() if entries]


def stands_out(entry: Mapping[str, float]) -> bool:
    """Return whether the interval excludes 0. The interval of a single pair is unknown, and excludes nothing."""
    return entry["low"] > 0 or entry["high"] < 0


def sentence(found: Sequence[Row], named: Mapping[str, str], other: str) -> list[str]:
    """Summarise the rows, one sentence per measure. named: a row's method -> its title. other: the title of what they are compared with."""
    said = []
    for name, title, unit, digits in MEASURES:
        known = {named[row.method]: row.values[name] for row in found if name in row.values}
        apart = {method: entry for method, entry in known.items() if stands_out(entry)}
        parts = [
            f"{method} is {abs(entry['mean']):.{digits}f} ± {(entry['high'] - entry['low']) / 2:.{digits}f} {unit} "
            f"{'farther from' if entry['mean'] > 0 else 'nearer to'} the retrain than {other}"
            for method, entry in sorted(apart.items(), key=lambda item: -abs(item[1]["mean"]))
        ]
        if rest := [method for method in known if method not in apart]:
            few = " and ".join(filter(None, [", ".join(rest[:-1]), rest[-1]]))
            parts.append(f"{few} cannot be told from {other}")
        if parts:
            said.append(f"By {title}, {'; '.join(parts)}.")
    return said


def tally(found: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Count by measure how many rows there are, and in how many the compared method is farther from the retrain ("worse") or nearer to it
    ("better"), with an interval that excludes 0."""
    return {
        name: {
            "rows": len(entries),
            "worse": sum(stands_out(entry) and entry["mean"] > 0 for entry in entries),
            "better": sum(stands_out(entry) and entry["mean"] < 0 for entry in entries),
        }
        for name, *_ in MEASURES
        if (entries := [row.values[name] for row in found if name in row.values])
    }
