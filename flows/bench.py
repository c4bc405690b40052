"""The benchmark flow: methods x targets x seeds through the stages and the cache of `flows.unlearn`, into one table and its figures.

Wiring only: the expansion, the table and the figures are in `megu.bench`, running the stages is in `tasks.run.schedule`. Run it as
``megu bench FILE``.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import steps
from flows.unlearn import pipeline, select
from megu.bench import config as files
from megu.bench.config import Bench, Runner
from megu.bench.expansion import Cell, expand
from megu.bench.outcome import Outcome
from megu.config.redaction import names_samples, store_redacted, told
from megu.core.files.exclusion import while_no_purge
from megu.core.progress import stages, track
from megu.core.project import Project, find
from megu.tracking import closing
from tasks.prefect import run_names
from tasks.prefect.slots import gpu
from tasks.records import bench as record
from tasks.run import inputs
from tasks.run.engine import Decision
from tasks.run.runners import task_runner
from tasks.run.running import ours
from tasks.run.schedule import Scheduler, Wiring, outstanding


def run(file: str | Path, settings: list[str] | None = None, out: str | None = None, document: str | None = None) -> Outcome:
    """Run a benchmark file on the runner that it specifies.

    file, out, document: relative to the current folder. settings: changes, each "key=value" (`megu.bench.config.load`).
    out: folder of the results (default: results/bench/<name> in the project). document: a Markdown page to write as well.
    """
    loaded = files.load(Path(file), settings or ())
    chosen = bench.with_options(task_runner=task_runner(loaded.runner))
    command = shlex.join(
        ["megu", "bench", os.path.relpath(file, find().root), *(f"--set={told(entry)}" for entry in settings or ())]
    )
    if any(map(names_samples, settings or ())):  # Prefect shows a flow's arguments, and why it failed
        preflight(find(), {cell.label: cell for cell in expand(loaded)}, loaded.runner)
        file, settings = store_redacted(find(), files.read(Path(file), settings or ())), None
    absolute = [str(Path(path).resolve()) if path else None for path in (out, document)]
    outcome: Outcome = chosen(str(Path(file).resolve()), settings, absolute[0], absolute[1], command)
    return outcome


@flow(
    name="bench",
    flow_run_name=run_names.bench,
    description="Unlearning methods x targets x seeds, each compared with its true retrain, in one table.",
)
@while_no_purge
@ours
def bench(
    file: str, settings: list[str] | None = None, out: str | None = None, document: str | None = None, command: str = ""
) -> Outcome:
    """See `run`, which also chooses the task runner. A cell that fails is recorded and does not stop the others."""
    started = time.perf_counter()
    project, loaded = find(), files.load(Path(file), settings or ())
    steps.refuse_unusable_tracking(project)
    cells = {cell.label: cell for cell in expand(loaded)}
    preflight(project, cells, loaded.runner)
    steps.say_without_commit(project)
    experiment = next(iter(cells.values())).config.registry.name
    # A runner that computes elsewhere (an existing Dask cluster) takes none of this machine's GPUs.
    device = "cpu" if loaded.runner.address else next(iter(cells.values())).config.device
    with gpu(device), closing(record.begin(project, loaded, experiment, len(cells))) as parent:
        runner = loaded.runner
        scheduler = Scheduler(project, runner.slots, runner.threads, runner.kind != "serial", {"mlflow_run_id": parent.id})
        marks, seen = {}, frozenset[str]()
        with track("bench", len(cells), "cells") as advance:
            for label, look in scheduler.run({label: wiring(project, cell) for label, cell in cells.items()}):
                ran = frozenset(entry.decision.key for entry in scheduler.computed)
                own = frozenset(entry.decision.key for entry in look.ran) & (ran - seen)
                seen |= own
                found = record.score(cells[label], look, own)
                marks[label] = record.record_cell(project, parent, experiment, cells[label], look, found)
                say(label, marks[label])
                advance(1)
        ordered = [marks[label] for label in cells]
        rows, summary = record.tables(ordered, list(cells.values()))
        folder = Path(out) if out else project.root / "results" / "bench" / loaded.name
        outcome = Outcome(
            name=loaded.name,
            marks=ordered,
            rows=rows,
            summary=summary,
            computed=len(scheduler.computed),
            kept=len(scheduler.found.results) - len(scheduler.computed),
            seconds=time.perf_counter() - started,
            folder=project.relative(folder),
            mlflow_run_id=parent.id,
            prefect_flow_run_id=flow_run.get_id() or "",
        )
        written = record.write(project, loaded, outcome, command, folder, Path(document) if document else None)
        record.publish(project, loaded, parent, outcome, written)
    return outcome


def wiring(project: Project, cell: Cell) -> Wiring:
    """Return a cell's stages, to be carried out by any kind of run."""

    def wired(step: Any) -> None:
        pipeline(step, project, select(step, project, cell.config))

    return wired


def preflight(project: Project, cells: Mapping[str, Cell], runner: Runner) -> None:
    """Refuse a request that could not be fulfilled, a labeler that could not be queried and a runner that would change the results; check
    each only once, whatever the number of methods.
    """
    configs = list({(cell.target, cell.seed): cell.config for cell in cells.values()}.values())
    for config in configs:
        inputs.check_provided(project, config)
        steps.refuse_cached_original(project, config)
    if runner.kind == "threads":
        for config in {cell.variant.method: cell.config for cell in cells.values()}.values():
            inputs.draws_nothing(project, config)
    judged = (cell.config for cell in cells.values() if "perturbing" in inputs.needs(cell.config))
    for config in {(repr(config.labeling), inputs.subclasses(config)): config for config in judged}.values():
        inputs.labeler_ready(project, config)


def say(label: str, mark: Any) -> None:
    """Tell the listener to stages and the flow run's log that a cell is finished, in one line."""
    gap = mark.comparison.get("gap")
    line = f"{label}: {f'FAILED: {mark.error}' if mark.error else f'gap {gap:.2f}' if gap is not None else 'done'}"
    stages().note(line)
    get_run_logger().log(logging.ERROR if mark.error else logging.INFO, line)


def plan(project: Project, loaded: Bench) -> tuple[list[Cell], dict[str, Decision], dict[str, Decision]]:
    """Return the cells, and the distinct stages that are cached and that would run. Computes nothing."""
    cells = {cell.label: cell for cell in expand(loaded)}
    preflight(project, cells, loaded.runner)
    kept, missing = outstanding(project, {label: wiring(project, cell) for label, cell in cells.items()})
    return list(cells.values()), kept, missing


__all__ = ["bench", "plan", "run"]
