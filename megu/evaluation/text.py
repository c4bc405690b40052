"""The result of a run in words, taken from its numbers, whether good or bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megu.core.escaping import markdown
from megu.core.progress import duration
from megu.evaluation.gate import RuleResult, on_training, provided_retrain, without_retrain
from megu.evaluation.guide import Metric, title
from megu.evaluation.own import explained
from megu.evaluation.summary import Rung, Summary

#: Reasons that a headline has room for.
_REASONS = 2


def headline(request: str, evaluation: Mapping[str, Any], failures: Sequence[str]) -> str:
    """Return one sentence: what happened to the forgotten and to the rest, and what the gate does not allow (`megu.evaluation.gate`)."""
    before, after = evaluation["original"]["metrics"], evaluation["unlearned"]["metrics"]
    reference = (evaluation.get("reference") or {}).get("metrics")
    known = f"{request}{' (its training images)' if on_training(evaluation) else ''}: {number(before['Af'])} → {number(after['Af'])}"
    rest = f"the rest {number(before['Ar'])} → {number(after['Ar'])}"
    if reference is None and not without_retrain(evaluation):
        return f"{known}; {rest}; no retrain to compare with"
    said = " and ".join(failures[:_REASONS]) + (f" (and {len(failures) - _REASONS} more)" if len(failures) > _REASONS else "")
    if reference is None:
        return f"{known}; {rest}; judged without a retrain" + (f" — {said}" if said else "")
    retrain = "given retrain" if provided_retrain(evaluation) else "retrain"
    return f"{known}; {rest} ({retrain} {number(reference['Ar'])})" + (f" — {said}" if said else "")


def retrain_title(given: str | None) -> str:
    """Return the title of the retrain's column. given: as returned by `megu.evaluation.gate.provided_retrain`."""
    return "given retrain" if given else "true retrain"


def gate_rows(rules: Sequence[RuleResult]) -> list[dict[str, str]]:
    """Return the gate's rules as text, one row each."""
    marks = {True: "holds", False: "FAILS", None: "does not apply"}
    return [
        {
            "rule": rule.rule,
            "": "not judged" if rule.not_judged else marks[rule.holds],
            "found": number(rule.value, 1, ""),
            "allowed": _allowed(rule.low, rule.high),
            "why": rule.reason,
        }
        for rule in rules
    ]


def ladder_rows(ladder: Sequence[Rung]) -> list[dict[str, str]]:
    """Return the rungs of a ladder as text, one row each."""
    return [
        {
            "rung": str(rung.number),
            "method": ", ".join([rung.method, *(f"{name} {value}" for name, value in rung.params.items())]),
            "outcome": rung.outcome,
            **{name: number(rung.metrics.get(name)) for name in ("Ar", "Af", "MIA")},
            "took": duration(rung.seconds) if rung.ran else "—",
            "images": f"{rung.passes:,}" if rung.ran else "—",
            "why": "; ".join(rung.says),
        }
        for rung in ladder
    ]


def _allowed(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "—" if low is high else f"at least {low:.1f}" if high is None else f"at most {high:.1f}"
    return f"{low:.1f} to {high:.1f}"


def number(value: float | None, digits: int = 1, unit: str = "%") -> str:
    """Write a metric; a dash when it is undefined."""
    return "—" if value is None or value != value else f"{value:.{digits}f}{unit}"  # noqa: PLR0124 - NaN


#: unit -> digits after the point, suffix
UNITS = {"%": (1, "%"), "nats": (2, " nats"), "points": (2, " points"), "steps": (0, " steps"), "": (3, "")}


def summary_rows(summary: Summary) -> list[dict[str, str]]:
    """Return the chief metrics that the run has, one row each: original, unlearned, and retrain with its 95% interval when there were
    several."""
    return [row(summary, key, metric) for key, metric in explained().items() if metric.brief and key in summary.metrics]


def guided_rows(summary: Summary) -> list[dict[str, str]]:
    """Return every metric that the run has, with the right value and why."""
    present = summary.metrics.keys() | summary.comparison.keys()
    return [
        row(summary, key, metric) | {"right": metric.right, "why": metric.why}
        for key, metric in explained().items()
        if key in present
    ]


def row(summary: Summary, key: str, metric: Metric) -> dict[str, str]:
    """Return one metric as text, for each model that the run has."""
    digits, unit = UNITS[metric.unit]
    if key in summary.comparison:  # compared with the first retrain; for the retrains, the others' values
        original, unlearned = summary.comparison.get(f"{key}_original"), summary.comparison[key]
        reference = {key: summary.comparison.get(f"{key}_reference")}
    else:
        original, unlearned = summary.original.get(key), summary.metrics.get(key)
        reference = dict(summary.reference or {})
    written = {
        "metric": title(key, metric, on_training=summary.af_on == "train"),
        "original": number(original, digits, unit),
        "unlearned": number(unlearned, digits, unit),
    }
    if summary.reference is not None:
        written[retrain_title(summary.given_reference)] = number(reference.get(key), digits, unit) + interval(
            summary, key, digits
        )
    return written


def interval(summary: Summary, key: str, digits: int) -> str:
    """Return the retrain's 95% interval over its seeds; empty with one retrain."""
    spread = summary.spread.get(key)
    if not spread or spread["low"] is None:
        return ""
    return f" [{spread['low']:.{digits}f}, {spread['high']:.{digits}f}], {int(spread['n'])} seeds"


def _share(percent: float) -> str:
    """A percentage with two significant digits, and never as a power of ten."""
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def conclusions(summary: Summary) -> list[str]:
    """Return the conclusions of the comparison with the retrain, one line each."""
    lines = []
    if summary.gap is not None:
        lines.append(f"Mean gap to the retrain over Ar, Af and MIA: {summary.gap:.2f} points.")
    if summary.time_share is not None:
        ran = {stage.name for stage in summary.stages if stage.computed_seconds > 0}
        spent = "Noise and re-optimisation" if "noise" in ran else "Unlearning"
        passes = "" if summary.pass_share is None else f", {_share(summary.pass_share)} of its passes through the network"
        lines.append(f"{spent} took {summary.time_share:.0f}% of the retrain's time{passes}.")
    if open_ := [rule.rule for rule in summary.gate.rules if rule.not_judged] if summary.gate else []:
        lines.append(f"There is no retrain, so the gate does not judge: {'; '.join(open_)}.")
    if summary.advice:
        lines.append(summary.advice)
    return [*lines, *summary.caveats]


def summary_markdown(summary: Summary) -> str:
    """Return headline, table and conclusions as Markdown, for Prefect and MLflow."""
    rows = summary_rows(summary)
    columns = list(rows[0])
    table = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row.values())} |" for row in rows)]
    return "\n".join([f"**{markdown(summary.headline)}**", "", *table, "", *conclusions(summary)])
