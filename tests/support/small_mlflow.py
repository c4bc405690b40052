"""MLflow's database of a small project: copies of one that MLflow made, with other places and hashes written in."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from purge_fixtures import forget_places

from megu.core.files.store import Ref
from megu.core.project import Project
from megu.tracking.versions import DIGEST_TAG

_ROOT, _ID = "/nowhere/at/all", "the id of a sample"
#: Version -> the model that it has.
VERSIONS = {"1": "original", "2": "older", "3": "unlearned"}


@functools.cache
def _template(run_id: str) -> Path:
    """A run that names a sample, and a registered model with three versions."""
    from mlflow import MlflowClient

    database = Path(tempfile.mkdtemp(prefix="megu-tests-")) / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment("megu", artifact_location=f"file://{_ROOT}/.megu/mlartifacts")
    made = client.create_run(experiment).info.run_id
    client.log_param(made, "forget.ids", _ID)
    client.set_terminated(made)
    client.create_registered_model("megu")
    for version, model in VERSIONS.items():
        source = f"file://{_ROOT}/.megu/mlartifacts/models/m-{version}"
        client.create_model_version("megu", source, tags={DIGEST_TAG: model})
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("PRAGMA foreign_keys = OFF")
        for table, column in _columns(opened):
            opened.execute(f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)', (made, run_id))
    return database


def _columns(opened: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    found = [(table, row) for table in tables for row in opened.execute(f'PRAGMA table_info("{table}")').fetchall()]
    return [(table, row[1]) for table, row in found if "CHAR" in row[2].upper() or "TEXT" in row[2].upper()]


def tracked(project: Project, run_id: str, models: Mapping[str, str], identifier: str, alias: Mapping[str, str]) -> set[Path]:
    """Put a database and the versions' files into a project; returns the files of models that were trained on the samples.

    models: SHA-256 of weights by name. alias: version -> alias, of those in service.
    """
    forget_places()
    database = project.home / "mlflow.db"
    shutil.copyfile(_template(run_id), database)
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("PRAGMA foreign_keys = OFF")
        for before, after in {_ROOT: str(project.root), _ID: identifier}.items():
            for table, column in _columns(opened):
                opened.execute(f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)', (before, after))
        for name, digest in models.items():
            opened.execute("UPDATE model_version_tags SET value = ? WHERE key = ? AND value = ?", (digest, DIGEST_TAG, name))
        for version, name in alias.items():
            opened.execute("INSERT INTO registered_model_aliases (name, alias, version) VALUES ('megu', ?, ?)", (name, version))
    gone = set()
    for version, model in VERSIONS.items():
        folder = project.home / "mlartifacts" / "models" / f"m-{version}"
        folder.mkdir(parents=True)
        weights = project.store.path(Ref("safetensors", models[model], 0))
        files = [folder / "weights.safetensors", folder / "MLmodel"]
        shutil.copyfile(weights, files[0])
        files[1].write_text(f"model: {version}\n")
        gone |= set(files) if model != "unlearned" else set()
    return gone
