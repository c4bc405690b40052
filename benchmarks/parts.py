"""One page from the cells of several runs of a benchmark file: of parts that ran on different days or in several processes.

    python benchmarks/parts.py bench/FILE.yaml PART [PART ...] --document docs/PAGE.md --note "..." [--set KEY=VALUE] [--machine cpu="..."]

PART: ``cells.json`` of a finished run, or the ``mlflow.db`` of one that was stopped: every cell that it finished is a run there.
A cell that is in several parts is taken from the last. Only cells that the benchmark file has are taken.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megu.bench import config as files
from megu.bench import page, plots
from megu.bench.expansion import expand
from megu.bench.scores import CellScore
from megu.core.project import find
from megu.tracking import charts
from megu.tracking.environment import environment
from tasks.records.bench import as_file, tables

#: Group of metrics in MLflow -> field of a mark.
SECTIONS = {
    charts.ORIGINAL: "original",
    charts.REFERENCE: "reference",
    charts.COMPARISON: "comparison",
    charts.COMPUTED: "seconds",
}


def cells(part: Path, bench: str) -> Iterator[CellScore]:
    """The finished cells of a part, those of a database the oldest first. bench: the name of the benchmark that they are of there."""
    if part.suffix == ".json":
        yield from (CellScore.from_json(entry) for entry in json.loads(part.read_text()))
        return
    with sqlite3.connect(f"file:{part}?mode=ro", uri=True) as database:
        own = "SELECT run_uuid FROM tags WHERE key = 'bench' AND value = ?"
        runs = database.execute(
            "SELECT run_uuid, name FROM runs WHERE status = 'FINISHED' AND run_uuid IN "
            f"(SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value IN ({own})) ORDER BY start_time",
            (bench,),
        ).fetchall()
        for run, name in runs:
            tags, params, metrics = (
                dict(database.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run,)))
                for table in ("tags", "params", "latest_metrics")
            )
            if "comparison/gap" not in metrics:
                continue
            found = {
                section: {key.removeprefix(f"{group}/"): value for key, value in metrics.items() if key.startswith(f"{group}/")}
                for group, section in SECTIONS.items()
            }
            found["unlearned"] = charts.of_unlearned(metrics)
            target, method = tags["request"], name.removeprefix(f"{tags['request']}, ").rpartition(", seed ")[0]
            shares = {key: metrics.get(f"{charts.COST}/{key}", metrics.get(key)) for key in charts.SHARES}
            yield CellScore(
                method=method,
                algorithm=tags["method"],
                target=target,
                seed=int(params["seed"]),
                mlflow_run_id=run,
                **found,
                **shares,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the benchmark")
    parser.add_argument("parts", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--document", type=Path, required=True)
    parser.add_argument("--note", default="", help="what a reader must know first")
    parser.add_argument(
        "--machine", action="append", default=[], metavar="NAME=VALUE", help="facts of another machine than this"
    )
    asked = parser.parse_args()
    project, loaded = find(), files.load(asked.file, asked.settings)
    found = {(mark.method, mark.target, mark.seed): mark for part in asked.parts for mark in cells(part, loaded.name)}
    wanted = expand(loaded)
    marks = [found[key] for cell in wanted if (key := (cell.variant.label, cell.target, cell.seed)) in found]
    missing = len(wanted) - len(marks)
    rows, summary = tables(marks, [cell for cell in wanted if (cell.variant.label, cell.target, cell.seed) in found])
    figures, document = plots.draw(marks), asked.document
    facts = environment(project.root) if not asked.machine else dict(entry.split("=", 1) for entry in asked.machine)
    content = page.Content(
        title=loaded.title or f"Benchmark {loaded.name}",
        note=" ".join(
            entry for entry in (asked.note, f"{missing} of {len(wanted)} cells were not run." if missing else "") if entry
        ),
        command=" ".join(["megu", "bench", str(asked.file), *(f"--set={entry}" for entry in asked.settings)]),
        environment=facts,
        config=as_file(project, replace(loaded, note="")),
        marks=marks,
        rows=rows,
        summary=summary,
        figures={name: f"{document.stem}-{name}.png" for name in figures},
    )
    document.write_text(page.render(content), encoding="utf-8")
    for name, picture in figures.items():
        document.with_name(content.figures[name]).write_bytes(picture)
    print(f"{document}: {len(marks)} of {len(wanted)} cells")


if __name__ == "__main__":
    main()
