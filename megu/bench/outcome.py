"""A finished benchmark, as the command line prints it and as ``--json`` returns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megu.bench.scores import CellScore
from megu.bench.table import Row


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """computed, kept: distinct stages that ran now, and that were cached. seconds: of the whole flow. folder: of the files, as a user would
    type it."""

    name: str
    marks: Sequence[CellScore]
    rows: Sequence[Row]
    summary: Sequence[Row]
    computed: int
    kept: int
    seconds: float
    folder: str
    mlflow_run_id: str = ""
    mlflow_url: str | None = None
    prefect_flow_run_id: str = ""

    @property
    def failed(self) -> list[CellScore]:
        return [mark for mark in self.marks if mark.error]

    def to_json(self) -> dict[str, Any]:
        def row(entry: Row) -> dict[str, Any]:
            named = {
                "target": entry.target,
                "method": entry.method,
                "value": entry.point,
                "runs": entry.n,
                "failed": entry.failed,
            }
            return {
                **named,
                "values": {name: dict(values) for name, values in entry.values.items()},
                "published": dict(entry.published),
            }

        return {
            "name": self.name,
            "cells": len(self.marks),
            "failed": len(self.failed),
            "stages": {"computed": self.computed, "kept": self.kept},
            "seconds": round(self.seconds, 3),
            "summary": [row(entry) for entry in self.summary],
            "rows": [row(entry) for entry in self.rows],
            "runs": [mark.to_json() for mark in self.marks],
            "folder": self.folder,
            "mlflow_run_id": self.mlflow_run_id,
            "prefect_flow_run_id": self.prefect_flow_run_id,
        }
