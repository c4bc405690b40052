"""What a person sees in the terminal: progress while it runs, then one table. Built on rich."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Task as Bar
from rich.table import Table
from rich.text import Text

from megu.bench.outcome import Outcome
from megu.bench.table import ACROSS, columns_of
from megu.bench.table import text as bench_text
from megu.core import escaping
from megu.core.files.store import without_nan
from megu.core.progress import Advance, duration, listening, watching
from megu.evaluation.summary import Summary
from megu.evaluation.text import conclusions, summary_rows


def _text(text: str, style: str = "") -> Text:
    """Return text without interpreting rich's markup."""
    return Text(escaping.visible(text), style)


class _Column(TextColumn):
    """Text beside a bar, computed from it."""

    def __init__(self, text: Callable[[Bar], str], style: str = "none") -> None:
        super().__init__("")
        self.text, self.of_style = text, style

    def render(self, task: Bar) -> Text:
        return _text(self.text(task), self.of_style)


def _done(bar: Bar) -> str:
    return f"{bar.completed:,.0f}/{bar.total:,.0f} {bar.fields['unit']}" if bar.total else ""


def _rate(bar: Bar) -> str:
    if not bar.total or not bar.speed:
        return ""
    return f"{bar.speed:,.0f}/s" if bar.speed >= 1 else f"{60 * bar.speed:,.0f}/min"


def _left(bar: Bar) -> str:
    return f"{duration(bar.time_remaining)} left" if bar.total and bar.time_remaining else ""


class Watcher:
    """Listens to progress and to stages, and draws them on standard error. Use it as a context manager.

    show: False keeps it silent. On a terminal a bar is drawn for everything that runs; elsewhere (a log file) one line is written when
    a stage starts and one when it ends.
    """

    def __init__(self, console: Console, *, show: bool = True) -> None:
        self.console = console
        self.show = show
        # By label, innermost last: a stage and the work inside it may have the same name.
        self._bars: dict[str, list[TaskID]] = {}
        self._progress = Progress(
            SpinnerColumn(),
            _Column(lambda bar: bar.description),
            BarColumn(bar_width=24),
            _Column(_done),
            _Column(_rate, "cyan"),
            TimeElapsedColumn(),
            _Column(_left, "dim"),
            console=console,
            transient=True,
            disable=not show or not console.is_terminal,
        )
        self._open = ExitStack()
        self._stage = ""

    def __enter__(self) -> Watcher:
        self._open.enter_context(listening(self))
        self._open.enter_context(watching(self))
        self._open.enter_context(self._progress)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def start(self, label: str, total: int | None, unit: str) -> Advance:
        bar = self._progress.add_task(label, total=total, unit=unit)
        self._bars.setdefault(label, []).append(bar)
        return lambda amount: self._progress.advance(bar, amount)

    def stop(self, label: str) -> None:
        self._progress.remove_task(self._bars[label].pop())

    def note(self, text: str) -> None:
        """Print one line about the run as a whole."""
        if self.show:
            self.console.print(_text(text, "dim"))

    def stage_starts(self, name: str, title: str) -> None:
        """A stage begins to compute."""
        if self.console.is_terminal:
            self._stage = f"{name}: {title}"
            self.start(self._stage, None, "")
        elif self.show:
            self.console.print(_text(f"  {name}: {title} …"))

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None:
        """A stage is done, or its cached result was found."""
        if self._stage:
            self.stop(self._stage)
            self._stage = ""
        if self.show:
            mark, took = (_text("=", "cyan"), "cached") if hit else (_text("✓", "green"), f"{seconds:.1f} s")
            line = Text.assemble(mark, f" {name:<19} ", (f"{took:>8}", "dim"), "  ", _text(says))
            self.console.print(line, soft_wrap=True)


def print_plan(decisions: Sequence[Any], cost: Any | None = None, *, as_json: bool) -> None:
    """Print hit or miss, and why, for each stage of a plan (`tasks.run.engine.Decision`). cost: what querying a labeler will take
    (`tasks.labeler.Cost`).
    """
    if as_json:
        rows = [{"name": entry.label, "cache": "hit" if entry.hit else "miss", "why": entry.why} for entry in decisions]
        asked = cost.to_json() if cost else None
        print(json.dumps({"stages": rows, "labeling": asked, **(asked or {})}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("cache")
    table.add_column("why", overflow="fold")
    for entry in decisions:
        table.add_row(entry.label, Text("hit", "cyan") if entry.hit else Text("miss", "yellow"), _text(entry.why))
    console = Console()
    console.print(table)
    misses = sum(not entry.hit for entry in decisions)
    console.print(f"{len(decisions) - misses} cached, {misses} to run", style="bold", highlight=False)
    if cost:
        console.print(_text(cost.describe()), soft_wrap=True)


def print_labeling(made: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what `flows.label.label` returns."""
    if as_json:
        print(json.dumps(made, indent=2))
        return
    console = Console()
    what = "found" if made["cache"] == "hit" else f"made in {duration(made['seconds'])}, {made['asked']:,} questions asked"
    console.print(_text(f"{made['data']}: judged by {made['labeler']['kind']}; {what}"), soft_wrap=True)
    console.print(Text("see it with megu label --show"), style="dim", soft_wrap=True)


def print_shown(shown: Any, *, as_json: bool) -> None:
    """Print cached similarity scores (`tasks.records.show.Shown`)."""
    if as_json:
        print(json.dumps(dataclasses.asdict(shown), indent=2))
        return
    console = Console()
    table = Table(title=_text(shown.labeler), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, justify in (("class", "left"), ("itself", "right"), ("nearest concepts", "left"), ("abstentions", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, others in shown.nearest.items():
        near = ", ".join(f"{other} {value:.2f}" for other, value in others.items() if value >= 0.005)
        table.add_row(_text(name), f"{shown.own[name]:.2f}", _text(near or "nothing"), str(shown.abstained[name] or "—"))
    console.print(table)
    for name, value in shown.agreement.items():
        said = "not defined" if value is None else f"{value:.2f}"
        console.print(_text(f"rank correlation with {name}: {said}"), soft_wrap=True)
    for name, why in shown.missing.items():
        console.print(_text(f"not compared with {name}: {why}"), soft_wrap=True)
    if shown.sanity:
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in shown.sanity.items() if value is not None)
        console.print(_text(f"sanity: {numbers}"), soft_wrap=True)
    for line in shown.scoring:
        console.print(_text(line), soft_wrap=True)
    for name, reasons in shown.because.items():
        console.print(_text(f"{name}, in its words: {'; '.join(reasons)}"), soft_wrap=True)
    console.print(_text(f"figure       {shown.picture}"), soft_wrap=True)


def print_summary(summary: Summary) -> None:
    """Print the one table at the end of a run, on standard output."""
    console = Console()
    table = Table(title=_text(summary.headline), title_justify="left", title_style="bold")
    rows = summary_rows(summary)
    for name in rows[0]:
        table.add_column("" if name == "metric" else name, justify="left" if name == "metric" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    lines = conclusions(summary)
    kept = sum(stage.hit for stage in summary.stages)
    lines.append(f"{len(summary.stages)} stages, {kept} cached, flow time {summary.flow_seconds:.1f} s")
    lines.append(f"MLflow run   {summary.mlflow_url or summary.mlflow_run_id}")
    lines.append(f"Prefect run  {summary.prefect_url or summary.prefect_flow_run_id}")
    if summary.gate:
        lines.append(
            f"gate         {summary.gate.decision}{': ' if summary.gate.failures else ''}{', '.join(summary.gate.failures)}"
        )
    if summary.model_version:
        lines.append(f"registered   {summary.model_version}")
    lines.append(f"report       {summary.report}")
    lines.append(f"dossier      {summary.dossier}; check it with megu verify {summary.mlflow_run_id}")
    for line in lines:
        console.print(_text(line), soft_wrap=True)


def print_bench(outcome: Outcome, *, as_json: bool) -> None:
    """Print the table of a benchmark: each target, then all of them."""
    if as_json:
        print(json.dumps(without_nan(outcome.to_json()), indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for title, rows, columns in (
        ("By target (means over the seeds)", outcome.rows, columns_of(outcome.rows)),
        ("Over all targets and seeds, the smallest gap first", outcome.summary, ACROSS),
    ):
        head, body = bench_text(rows, columns, spreads=("gap",))
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for name in head:
            table.add_column(name, justify="left" if name in ("target", "method", "value") else "right", no_wrap=True)
        for row, following, cells in zip(rows, [*rows[1:], None], body, strict=True):
            last = following is not None and following.target != row.target
            table.add_row(*(_text(cell) for cell in cells), end_section=last)
        console.print(table)
    for mark in outcome.failed:
        said = f"FAILED  {mark.target}, {mark.method} {mark.point}, seed {mark.seed}: {mark.error}"
        console.print(_text(said), soft_wrap=True)
    stages = f"{outcome.computed + outcome.kept} stages, {outcome.kept} cached"
    console.print(
        f"{len(outcome.marks)} runs, {len(outcome.failed)} failed; {stages}, {outcome.seconds:.1f} s", highlight=False
    )
    console.print(_text(f"MLflow run   {outcome.mlflow_url or outcome.mlflow_run_id}"), soft_wrap=True)
    console.print(_text(f"files        {outcome.folder}"), soft_wrap=True)


def print_bench_plan(cells: Sequence[Any], kept: Mapping[str, Any], missing: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a benchmark would do: its runs, and the distinct stages that are cached and that would run, by kind."""
    names = dict.fromkeys(decision.stage.name for decision in [*kept.values(), *missing.values()])
    counts = {
        name: [sum(decision.stage.name == name for decision in group.values()) for group in (kept, missing)] for name in names
    }
    if as_json:
        stages = {name: {"kept": here, "run": to_run} for name, (here, to_run) in counts.items()}
        print(json.dumps({"cells": len(cells), "kept": len(kept), "run": len(missing), "stages": stages}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "cached", "to run"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, (here, to_run) in counts.items():
        table.add_row(name, str(here), str(to_run))
    console = Console()
    console.print(table)
    console.print(f"{len(cells)} runs; {len(kept)} stages cached, at most {len(missing)} to run", style="bold", highlight=False)


def print_methods(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the unlearning methods (`megu.unlearning.methods.described`), with their parameters and defaults."""
    if as_json:
        print(json.dumps({"methods": list(rows)}, indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        params = ", ".join(f"{name}={value}" for name, value in row["params"].items()) or "none of its own"
        about = {"paper": row["paper"], "cost": row["cost"], "needs": ", ".join(row["needs"]) or "the forget set alone"}
        lines = [row["title"], *(f"{name}: {text}" for name, text in about.items()), f"parameters: {params}", ""]
        table.add_row(_text(row["name"], "bold"), _text("\n".join(lines)))
    Console().print(table)


def print_checks(checks: Sequence[Any], *, as_json: bool) -> None:
    """Print the doctor's findings (`megu.cli.doctor.Check`), each failing one with its fix."""
    if as_json:
        print(
            json.dumps({"checks": [{"name": c.name, "ok": c.ok, "detail": c.detail, "fix": c.fix} for c in checks]}, indent=2)
        )
        return
    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {True: Text("ok", "green"), False: Text("missing", "bold red"), None: Text("optional", "yellow")}
    for check in checks:
        text = check.detail + (f"\n→ {check.fix}" if check.fix and check.ok is not True else "")
        table.add_row(marks[check.ok], _text(check.name), _text(text))
    console.print(table)
