"""What a benchmark leaves behind: a child MLflow run for each cell, the parent's table and figures, the files, the Prefect artifacts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from megu import tracking
from megu.bench import page, table
from megu.bench.config import Bench
from megu.bench.expansion import Cell
from megu.bench.outcome import Outcome
from megu.bench.published import published
from megu.bench.scores import CellScore, numeric
from megu.config.redaction import redacted
from megu.config.tree import Config
from megu.core.escaping import markdown, plain
from megu.core.files.store import canonical_json, without_nan, writing
from megu.core.project import Project
from megu.evaluation.gate import provided_retrain
from megu.evaluation.text import retrain_title
from megu.requests.request import scrubbed
from megu.servers import services
from megu.tracking import Run, charts
from megu.tracking.environment import environment
from tasks.records import record
from tasks.reference import GIVEN_REFERENCE
from tasks.run.schedule import Inspection


def begin(project: Project, bench: Bench, experiment: str, cells: int) -> Run:
    """Start the parent run."""
    return Run.start(
        project.home,
        experiment,
        f"bench {bench.name}",
        {
            "bench": bench.name,
            "bench.cells": cells,
            "prefect.flow_run_id": flow_run.get_id() or "",
            "prefect.flow_run_name": flow_run.get_name() or "",
            "prefect.flow_run_url": record.prefect_url(project),
            **environment(project.root),
        },
    )


def score(cell: Cell, look: Inspection, computed: frozenset[str]) -> CellScore:
    """Return a finished cell's numbers, or its error. computed: keys of the stages that ran for this cell."""
    stages = {ran.decision.label: ran for ran in look.ran}
    known = CellScore(
        method=cell.variant.label,
        algorithm=cell.variant.method,
        target=cell.target,
        seed=cell.seed,
        swept=cell.swept,
        seconds={
            label: ran.result.notes.get("compute_seconds", ran.result.seconds)
            for label, ran in stages.items()
            if ran.decision.stage is not GIVEN_REFERENCE  # the time of checking it is not training time
        },
        computed=len(computed),
        kept=len({ran.decision.key for ran in look.ran} - computed),
        error=_without_samples(look.error, cell.config),
    )
    if look.error:
        return known
    values = stages["evaluation"].result.values
    peaks = [ran.result.notes["peak_memory_bytes"] / 2**20 for ran in look.ran if "peak_memory_bytes" in ran.result.notes]
    weights = {"original": ("original", "given"), "unlearned": ("unlearn",), "reference": ("reference", "reference 1")}
    return replace(
        known,
        original=numeric(values["original"]["metrics"]),
        unlearned=numeric(values["unlearned"]["metrics"]),
        reference=numeric(values["reference"]["metrics"]),
        comparison=numeric(values["comparison"]),
        retrain=retrain_title(provided_retrain(values)),
        time_share=record.share(look, "compute_seconds"),
        pass_share=record.share(look, "passes"),
        peak_mib=max(peaks, default=None),
        weights={
            name: stages[label].result.values["weights_digest"]
            for name, labels in weights.items()
            for label in labels
            if label in stages
        },
    )


def _without_samples(error: str | None, config: Config) -> str | None:
    """Return why a cell failed; if its request names single samples, without what names them."""
    return (
        scrubbed(error, {"ids": config.forget.ids, "files": config.forget.files})
        if error and record.names_samples(config)
        else error
    )


def record_cell(project: Project, parent: Run, experiment: str, cell: Cell, look: Inspection, found: CellScore) -> CellScore:
    """Record a cell's child run, whether it was computed or cached; return the score with its id."""
    child = Run.start(
        project.home,
        experiment,
        cell.label,
        {
            "mlflow.parentRunId": parent.id,
            "request": cell.target,
            "method": cell.variant.label,
            "prefect.flow_run_id": flow_run.get_id() or "",
            **({"error": found.error} if found.error else {}),
        },
    )
    metrics = charts.models(found.unlearned, found.original, found.reference, found.comparison)
    metrics |= {f"{charts.COMPUTED}/{name}": float(value) for name, value in found.seconds.items()}
    metrics |= {f"{charts.COST}/{name}": value for name in charts.SHARES if (value := getattr(found, name)) is not None}
    origins = record.reused_from(child, look)
    child.log(
        params=tracking.flat(redacted(project, cell.config.to_json())),
        metrics=metrics,
        tags={f"origin_run_id.{label}": origin for label, origin in origins.items()},
    )
    child.artifacts(
        {
            "mark.json": canonical_json(without_nan(found.to_json())),
            "stages.json": canonical_json(
                {ran.decision.label: {"key": ran.decision.key, **ran.result.to_json()} for ran in look.ran}
            ),
        }
    )
    child.finish("FAILED" if found.error else "FINISHED")
    return replace(found, mlflow_run_id=child.id)


def tables(marks: Sequence[CellScore], cells: Sequence[Cell]) -> tuple[list[table.Row], list[table.Row]]:
    """Return the rows by target, with the published numbers, and the summary."""
    of_target = {cell.target: cell.config for cell in cells}
    return table.rows(marks, lambda target, algorithm: published(of_target[target], algorithm)), table.summary(marks)


@task(
    name="write-bench",
    task_run_name="write the table",
    description="Write table, numbers and figures of the benchmark",
    persist_result=False,
)
def write(
    project: Project, bench: Bench, outcome: Outcome, command: str, folder: Path, document: Path | None
) -> dict[str, bytes]:
    """Write ``folder`` and, if requested, ``document`` with its figures beside it; return the files by name."""
    from megu.bench import plots  # imports matplotlib, which the first stage need not wait for

    figures = plots.draw(outcome.marks)
    content = partial(
        page.Content,
        title=bench.title or f"Benchmark {bench.name}",
        note=bench.note,
        command=command,
        environment=environment(project.root),
        config=as_file(project, bench),
        marks=outcome.marks,
        rows=outcome.rows,
        summary=outcome.summary,
    )
    files = {
        "table.md": page.render(content(figures={name: f"{name}.png" for name in figures})).encode(),
        "table.csv": table.as_csv(outcome.rows).encode(),
        "summary.csv": table.as_csv(outcome.summary).encode(),
        "cells.json": (json.dumps(without_nan([entry.to_json() for entry in outcome.marks]), indent=1) + "\n").encode(),
        **{f"{name}.png": picture for name, picture in figures.items()},
    }
    for name, entry in files.items():
        put(folder / name, entry)
    if document:
        beside = {name: f"{document.stem}-{name}.png" for name in figures}
        put(document, page.render(content(figures=beside)).encode())
        for name, picture in figures.items():
            put(document.with_name(beside[name]), picture)
    return files


def as_file(project: Project, bench: Bench) -> dict[str, Any]:
    """Return the benchmark as in its file, with every setting applied and commitments for the samples that it names."""
    values: dict[str, Any] = json.loads(
        json.dumps({name: getattr(bench, name) for name in ("name", "base", "methods", "targets")})
    )
    rest = {"seeds": list(bench.seeds), "sweep": {key: list(entries) for key, entries in bench.sweep.items()}}
    whole = {**values, **{name: entry for name, entry in rest.items() if entry}, "runner": dict(vars(bench.runner))}
    found: dict[str, Any] = redacted(project, whole)
    return found


def put(path: Path, content: bytes) -> None:
    with writing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(0o644)


@task(
    name="record-bench",
    task_run_name="record in MLflow and Prefect",
    description="Log the benchmark to MLflow and leave its artifacts in Prefect",
    persist_result=False,
)
def publish(project: Project, bench: Bench, run: Run, outcome: Outcome, files: Mapping[str, bytes]) -> None:
    """Log to the parent run and leave the Prefect artifacts. ``files``: what `write` wrote."""
    run.log(
        params={"methods": ", ".join(dict.fromkeys(entry.method for entry in outcome.marks)), "seeds": list(bench.seeds)}
        | {f"runner.{name}": value for name, value in vars(bench.runner).items()},
        metrics={"cells/total": len(outcome.marks), "cells/failed": len(outcome.failed)}
        | {"stages/computed": outcome.computed, "stages/cached": outcome.kept}
        | {f"gap/{_metric_name(row)}": row.values["gap"]["mean"] for row in outcome.summary if "gap" in row.values},
        tags={"mlflow.note.content": table.markdown(outcome.summary, table.ACROSS)},
    )
    run.artifacts({**files, "bench.json": canonical_json(without_nan(as_file(project, bench)))})
    link = run.url(services.endpoints(project.home).mlflow) or run.url(record.MLFLOW_UI)
    create_markdown_artifact(
        f"{table.markdown(outcome.summary, table.ACROSS)}\n\n[MLflow run]({link})",
        key="bench",
        description=markdown(bench.name),
    )
    head, body = table.text(outcome.rows)
    create_table_artifact(
        [dict(zip(head, map(plain, cells), strict=True)) for cells in body], key="bench-table", description=markdown(bench.name)
    )
    for name, content in files.items():
        if name.endswith(".png"):
            picture = base64.b64encode(content).decode()
            create_image_artifact(f"data:image/png;base64,{picture}", key=f"bench-{name[:-4]}", description=name[:-4])
    create_link_artifact(
        str(link), link_text="MLflow run", key="bench-mlflow-run", description="The parent of every cell's run"
    )


def _metric_name(row: table.Row) -> str:
    """Return a valid name: MLflow allows letters, digits and ``_-. /`` in the name of a metric."""
    name = f"{row.method} {row.point}".strip()
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
