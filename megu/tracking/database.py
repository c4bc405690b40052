"""MLflow's own SQLite database, read without MLflow: importing it takes two seconds of CPU time, opening its store another.

Only for verification, which needs a dozen rows. It answers those queries of an `mlflow.MlflowClient` that `megu.tracking.lineage`
makes, and only for the one schema that it knows; for another schema, or another kind of store, MLflow is used. Nothing is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: The schema revision of MLflow 3.17 (its table ``alembic_version``).
KNOWN = "dc11669786a5"
#: How the registry marks a deleted version, and the workspace of all rows if nobody has created one.
_DELETED, _WORKSPACE = "Deleted_Internal", "default"


class Absent(Exception):
    """There is no such run, version or model; reported as MLflow reports it."""

    error_code = "RESOURCE_DOES_NOT_EXIST"

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class Database:
    """Read-only; every query opens and closes the file, so no lock is ever held."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.path}"

    def is_supported(self) -> bool:
        """Whether the database has the schema that is read here."""
        try:
            return self._rows("SELECT version_num FROM alembic_version") == [(KNOWN,)]
        except sqlite3.Error:
            return False

    def get_run(self, run_id: str) -> Any:
        columns = "name, experiment_id, start_time, status, lifecycle_stage, artifact_uri"
        row = self._one(f"SELECT {columns} FROM runs WHERE run_uuid = ?", f"Run with id={run_id} not found", run_id)
        names = ("run_name", "experiment_id", "start_time", "status", "lifecycle_stage", "artifact_uri")
        metrics = self._rows("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", run_id)
        inputs = self._rows(
            "SELECT d.name, d.digest, d.dataset_source FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id "
            "WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = ?",
            run_id,
        )
        named = [SimpleNamespace(name=name, digest=digest, source=source) for name, digest, source in inputs]
        return SimpleNamespace(
            info=SimpleNamespace(**dict(zip(names, row, strict=True))),
            data=SimpleNamespace(
                params=dict(self._rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
                metrics={key: float("nan") if is_nan else value for key, value, is_nan in metrics},
                tags=dict(self._rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)),
            ),
            inputs=SimpleNamespace(dataset_inputs=[SimpleNamespace(dataset=entry) for entry in named]),
        )

    def get_model_version(self, name: str, version: str) -> Any:
        where = "name = ? AND version = ? AND workspace = ?"
        row = self._one(
            f"SELECT source, run_id, description, creation_time FROM model_versions WHERE {where} AND current_stage != ?",
            f"Model Version (name={name}, version={version}) not found",
            *(name, int(version), _WORKSPACE, _DELETED),
        )
        found = dict(zip(("source", "run_id", "description", "creation_timestamp"), row, strict=True))
        tags = self._rows(f"SELECT key, value FROM model_version_tags WHERE {where}", name, int(version), _WORKSPACE)
        return SimpleNamespace(name=name, version=str(version), tags=dict(tags), **found)

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        aliases = self.get_registered_model(name).aliases
        if alias not in aliases:
            raise Absent(f"Registered model alias {alias} not found.")
        return self.get_model_version(name, aliases[alias])

    def get_registered_model(self, name: str) -> Any:
        where = "WHERE name = ? AND workspace = ?"
        self._one(
            f"SELECT name FROM registered_models {where}", f"Registered Model with name={name} not found", name, _WORKSPACE
        )
        aliases = self._rows(f"SELECT alias, version FROM registered_model_aliases {where}", name, _WORKSPACE)
        tags = self._rows(f"SELECT key, value FROM registered_model_tags {where}", name, _WORKSPACE)
        return SimpleNamespace(aliases={alias: str(version) for alias, version in aliases}, tags=dict(tags))

    def get_logged_model(self, model_id: str) -> Any:
        (place,) = self._one(
            "SELECT artifact_location FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'",
            f"Logged model with ID {model_id!r} not found",
            model_id,
        )
        return SimpleNamespace(artifact_location=place)

    def _one(self, query: str, missing: str, *values: Any) -> tuple[Any, ...]:
        rows = self._rows(query, *values)
        if not rows:
            raise Absent(missing)
        return rows[0]

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as opened:
            return opened.execute(query, values).fetchall()
