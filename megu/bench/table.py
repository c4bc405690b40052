"""The table of a benchmark: a row for each target and method over its seeds, and a summary over all targets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from megu.bench.scores import CellScore, Numbers, finished
from megu.core.escaping import csv_cell
from megu.core.escaping import markdown as markdown_text
from megu.evaluation import HEADLINE, gap, tow
from megu.evaluation.gate import DEEP as RULES
from megu.evaluation.statistics import interval

ORIGINAL, REFERENCE = "original", "true retrain"
#: What every row shows: number, title, digits.
COLUMNS = (
    ("Ar", "Ar %", 1),
    ("Af", "Af %", 1),
    ("MIA", "MIA %", 1),
    ("gap", "gap", 2),
    ("ToW", "ToW", 3),
    ("JS_forget", "JS", 3),
    ("seconds", "time s", 1),
    ("time_share", "of retrain's time %", 1),
    ("pass_share", "of its passes %", 2),
)
#: Columns that are added where some row has them.
DEEP = tuple((metric, f"{metric.replace('_', ' ')} %", 1) for metric, _ in RULES.values())
#: What the summary shows: accuracies averaged over unlike targets say little.
ACROSS = tuple(column for column in COLUMNS if column[0] not in HEADLINE)
_TOW = ("Af_train", "Ar_train", "test_accuracy")


@dataclass(frozen=True)
class Row:
    """target: "" in the summary. values: by number: mean, low, high (95% t interval), std and n; NaN where a single value gives none.

    n: runs that finished. failed: runs that did not. published: the paper's numbers for this row.
    """

    target: str
    method: str
    point: str
    values: Mapping[str, Mapping[str, float]]
    n: int
    failed: int = 0
    published: Numbers = field(default_factory=dict)

    def cell(self, name: str, digits: int) -> str:
        return plus_minus(self.values.get(name), digits)


def plus_minus(entry: Mapping[str, float] | None, digits: int) -> str:
    """Write "mean ± half of the 95% interval"; only the mean for a single value, a dash for none."""
    if not entry:
        return "—"
    mean = f"{entry['mean']:.{digits}f}"
    return mean if entry["n"] < 2 else f"{mean} ± {(entry['high'] - entry['low']) / 2:.{digits}f}"


def spread(entries: Sequence[Numbers]) -> dict[str, dict[str, float]]:
    """Return the interval of each number over the entries that have it."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    return {name: interval([entry[name] for entry in entries if name in entry]) for name in names}


def compared(metrics: Numbers, reference: Numbers) -> dict[str, float]:
    """Return gap and ToW of one model's metrics compared with another's, where both have the metrics needed."""
    found = {}
    if all(name in metrics and name in reference for name in HEADLINE):
        found["gap"] = gap(metrics, reference)
    if all(name in metrics and name in reference for name in _TOW):
        found["ToW"] = tow(metrics, reference)
    return found


def retrain_of(marks: Sequence[CellScore]) -> str:
    """Return the title of the retrain that all are compared with. A given one serves a single target and seed, so there is one title."""
    return next((mark.retrain for mark in marks), REFERENCE)


def floors(marks: Sequence[CellScore]) -> dict[str, list[dict[str, float]]]:
    """Return by target gap and ToW between the retrains of every two seeds: how far one retrain is from another, which no method can be
    expected to beat. (In a random request each seed also draws its own images.)"""
    found: dict[str, list[dict[str, float]]] = {}
    for target in dict.fromkeys(mark.target for mark in marks):
        own = _by_seed(mark for mark in finished(marks) if mark.target == target)
        found[target] = [compared(one.reference, other.reference) for one, other in combinations(own, 2)]
    return found


def _by_seed(marks: Iterable[CellScore]) -> list[CellScore]:
    """Return one score per seed: all of a target and seed share the original and the retrain."""
    first: dict[int, CellScore] = {}
    for mark in marks:
        first.setdefault(mark.seed, mark)
    return list(first.values())


def rows(marks: Sequence[CellScore], published: Callable[[str, str], Numbers] = lambda target, algorithm: {}) -> list[Row]:
    """Return for each target the original, the retrain, then the methods in their order.

    published: called with target and algorithm ("original", "retrain" or a method).
    """
    result = []
    floor = floors(marks)
    for target in dict.fromkeys(mark.target for mark in marks):
        own = [mark for mark in marks if mark.target == target]
        result += [
            _original(target, _by_seed(finished(own)), published(target, "original")),
            _reference(target, _by_seed(finished(own)), floor[target], published(target, "retrain")),
        ]
        for method, point in dict.fromkeys((mark.method, mark.point) for mark in own):
            same = [mark for mark in own if (mark.method, mark.point) == (method, point)]
            good = finished(same)
            values = spread([mark.numbers() for mark in good])
            beside = published(target, same[0].algorithm)
            result.append(Row(target, method, point, values, len(good), len(same) - len(good), beside))
    return result


def _original(target: str, marks: Sequence[CellScore], beside: Numbers) -> Row:
    entries = [{**mark.original, **compared(mark.original, mark.reference)} for mark in marks]
    return Row(target, ORIGINAL, "", spread(entries), len(marks), published=beside)


def _reference(target: str, marks: Sequence[CellScore], floor: Sequence[Numbers], beside: Numbers) -> Row:
    """Make the retrain's row. Its gap is that between retrains of different seeds: to itself it would be 0."""
    entries = [{**mark.reference, **_own_time(mark)} for mark in marks]
    return Row(target, retrain_of(marks), "", {**spread(entries), **spread(floor)}, len(marks), published=beside)


def _own_time(mark: CellScore) -> dict[str, float]:
    return (
        {"seconds": mark.seconds["reference"], "time_share": 100.0, "pass_share": 100.0} if "reference" in mark.seconds else {}
    )


def summary(marks: Sequence[CellScore]) -> list[Row]:
    """Return each method over all pairs of target and seed, the smallest mean gap first; the original and the floor are placed by their
    gap."""
    found = []
    for method, point in dict.fromkeys((mark.method, mark.point) for mark in marks):
        same = [mark for mark in marks if (mark.method, mark.point) == (method, point)]
        good = finished(same)
        found.append(Row("", method, point, spread([mark.numbers() for mark in good]), len(good), len(same) - len(good)))
    each = [mark for target in floors(marks) for mark in _by_seed(m for m in finished(marks) if m.target == target)]
    if each:
        found.append(_original("", each, {}))
        found.append(_reference("", each, [entry for entries in floors(marks).values() for entry in entries], {}))
    return sorted(found, key=_by_gap)


def _by_gap(row: Row) -> tuple[int, float]:
    """Sort by the mean gap; a retrain of one seed, whose gap is unknown, comes first, and what never worked last."""
    return (1, row.values["gap"]["mean"]) if "gap" in row.values else (0 if row.n else 2, 0.0)


def columns_of(table: Sequence[Row]) -> tuple[tuple[str, str, int], ...]:
    """Return `COLUMNS`, and the columns of `DEEP` that some row has."""
    return (*COLUMNS, *(column for column in DEEP if any(column[0] in row.values for row in table)))


def more(table: Sequence[Row]) -> list[str]:
    """Return the names of all other numbers that some row has, in their order."""
    shown = {name for name, _, _ in (*COLUMNS, *DEEP)}
    return [name for name in dict.fromkeys(name for row in table for name in row.values) if name not in shown]


def markdown(table: Sequence[Row], columns: Sequence[tuple[str, str, int]] = COLUMNS) -> str:
    """Write a Markdown table, with the columns "target" and "value" only where some row has one."""
    return lines_of(*text(table, columns))


def text(
    table: Sequence[Row], columns: Sequence[tuple[str, str, int]] = COLUMNS, spreads: Collection[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells as text. spreads: the numbers whose interval is shown (None: all)."""
    targets, points = any(row.target for row in table), any(row.point for row in table)
    failures = any(row.failed for row in table)
    head = [
        *(["target"] if targets else []),
        "method",
        *(["value"] if points else []),
        *(title for _, title, _ in columns),
        "n",
    ]
    body = []
    for row in table:
        runs = f"{row.n}" + (f" ({row.failed} failed)" if failures and row.failed else "")
        shown = [row.cell(name, digits) for name, _, digits in columns]
        hidden = [spreads is not None and name not in spreads for name, _, _ in columns]
        cells = [cell.split(" ")[0] if short else cell for cell, short in zip(shown, hidden, strict=True)]
        body.append([*([row.target] if targets else []), row.method, *([row.point] if points else []), *cells, runs])
    return head, body


def lines_of(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(markdown_text, head))} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(markdown_text, cells))} |" for cells in body)])


def beside(table: Sequence[Row]) -> tuple[list[str], list[list[str]]] | None:
    """Return ours next to the published numbers, for the rows that have both; None where no row has."""
    names = (*HEADLINE, "gap")
    head = ["target", "method", *(title for name in names for title in (f"{name}, ours", f"{name}, paper"))]
    body = [
        [row.target, row.method, *(cell for name in names for cell in (row.cell(name, 2), f"{row.published[name]:.2f}"))]
        for row in table
        if row.published
    ]
    return (head, body) if body else None


def as_csv(table: Sequence[Row]) -> str:
    """Write every number of every row as CSV: mean, the interval's ends and n, and the published ones."""
    names = [name for name, _, _ in columns_of(table)] + more(table)
    fields = ["target", "method", "value", "runs", "failed"]
    fields += [f"{name}{part}" for name in names for part in ("", "_low", "_high")]
    fields += [f"published_{name}" for name in (*HEADLINE, "gap")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator="\n", restval="")
    writer.writeheader()
    for row in table:
        record: dict[str, Any] = {"target": csv_cell(row.target), "method": csv_cell(row.method), "value": csv_cell(row.point)}
        record |= {"runs": row.n, "failed": row.failed}
        for name, entry in row.values.items():
            several = entry["n"] > 1
            record |= {name: entry["mean"], **({f"{name}_low": entry["low"], f"{name}_high": entry["high"]} if several else {})}
        record |= {f"published_{name}": value for name, value in row.published.items()}
        writer.writerow(record)
    return buffer.getvalue()
