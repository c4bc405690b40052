"""MLflow as a purge needs it: where the files of runs and versions are, and removing them permanently."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from megu.tracking import answered, uri
from megu.tracking.lineage import FOLDER
from megu.tracking.versions import DIGEST_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

PURGE_TAG = "lineage.purge"


@dataclass(frozen=True)
class RunPlace:
    """A run. deleted: in MLflow's sense, which leaves its files and rows. folder: its artifacts, None if they are not on a local disk."""

    run_id: str
    deleted: bool
    address: str
    folder: Path | None


@dataclass(frozen=True)
class VersionPlace:
    """A registered version. weights: SHA-256 of its weights, empty if another program made it. aliases: its current ones."""

    name: str
    version: str
    weights: str
    aliases: tuple[str, ...]
    folder: Path | None

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


def database(home: Path) -> Path | None:
    """Return the file of the tracking store, None if it is on a server or in another database."""
    where = uri(home)
    return Path(where.removeprefix("sqlite:///")) if where.startswith("sqlite:///") else None


@answered
def runs(connected: MlflowClient) -> list[RunPlace]:
    """Return every run of every experiment, including deleted ones."""
    from mlflow.entities import ViewType

    experiments = [entry.experiment_id for entry in connected.search_experiments(view_type=ViewType.ALL)]
    found, token = list[Any](), None
    while experiments:
        page = connected.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1000, page_token=token)
        found.extend(page)
        if not (token := page.token):
            break
    return [
        RunPlace(
            run.info.run_id, run.info.lifecycle_stage != "active", str(run.info.artifact_uri), local(str(run.info.artifact_uri))
        )
        for run in found
    ]


@answered
def versions(connected: MlflowClient) -> list[VersionPlace]:
    """Return every version of every registered model."""
    found = []
    for model in connected.search_registered_models(max_results=1000):
        aliases = dict(connected.get_registered_model(model.name).aliases)
        for entry in connected.search_model_versions(max_results=10_000):
            if entry.name == model.name:
                own = tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(entry.version)))
                digest = str(entry.tags.get(DIGEST_TAG, ""))
                found.append(VersionPlace(entry.name, str(entry.version), digest, own, _files(connected, str(entry.source))))
    return found


@dataclass(frozen=True)
class Living:
    """A registered version that is not deleted. weights: SHA-256 of its weights, empty if another program made it. run_id: of the MLflow
    run that made it, empty without one.
    """

    weights: str
    run_id: str


@answered
def living(connected: MlflowClient) -> list[Living]:
    """Return every version of every registered model that is not deleted."""
    found, token = list[Any](), None
    while True:
        page = connected.search_model_versions(max_results=1000, page_token=token)
        found.extend(page)
        if not (token := page.token):
            return [Living(str(entry.tags.get(DIGEST_TAG, "")), str(entry.run_id or "")) for entry in found]


def local(address: str) -> Path | None:
    """Return the folder of an artifact address on this machine's disk; None for any other."""
    parsed = urlparse(address)
    return Path(unquote(parsed.path)) if address and parsed.scheme in ("", "file") else None


def _files(connected: MlflowClient, source: str) -> Path | None:
    from mlflow.exceptions import MlflowException

    if source.startswith("models:/m-"):
        try:
            source = str(connected.get_logged_model(source.removeprefix("models:/")).artifact_location)
        except MlflowException:
            return None
    return local(source)


@answered
def delete_version(connected: MlflowClient, name: str, version: str, folder: Path | None) -> None:
    """Remove a version and its files; nothing happens if they are already gone."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        connected.delete_model_version(name, version)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@answered
def forget_run(home: Path, run_id: str) -> None:
    """Remove a deleted run permanently, as ``mlflow gc`` does: its row, and what is left of its files. A server does its own."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking._tracking_service.utils import _get_store

    store: Any = _get_store(uri(home))  # type: ignore[no-untyped-call]
    with contextlib.suppress(MlflowException):
        folder = local(str(store.get_run(run_id).info.artifact_uri))
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        store._hard_delete_run(run_id)


@answered
def log_purge(connected: MlflowClient, run_id: str, name: str, content: bytes, seal: str) -> None:
    """Store the document beside the run's dossier, and its seal in a tag."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(content)
        connected.log_artifact(run_id, str(path), FOLDER)
    connected.set_tag(run_id, PURGE_TAG, seal)
