"""MLflow as a dossier records it, and as it is compared with later."""

from __future__ import annotations

import importlib.util
import py_compile
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlparse

from megu.core.errors import MeguError
from megu.core.files.store import sha256_file, without_nan
from megu.tracking import answered, client, uri, use
from megu.tracking.database import Absent, Database

if TYPE_CHECKING:
    from mlflow import MlflowClient as MlflowClient  # noqa: PLC0414 - the type, for modules that may not import MLflow

ROOT_TAG, SEAL_TAG, HEAD_TAG = "lineage.root", "lineage.seal", "lineage.head"
#: The folder of a run's dossier among its artifacts.
FOLDER = "dossier"


def reach(home: Path) -> MlflowClient:
    """Return a client of an existing tracking store; never creates one.

    Raises `MeguError` when it does not exist or does not answer.
    """
    where = uri(home)
    if where.startswith("sqlite:///") and not Path(where.removeprefix("sqlite:///")).is_file():
        raise MeguError("there is no MLflow database here", "run where the model was made, or set MLFLOW_TRACKING_URI")
    return client(home)


def reader(home: Path) -> MlflowClient:
    """Return a client as `reach` does, only for looking things up: the project's own database is read without MLflow, which takes seconds
    to import.

    Raises `MeguError` as `reach` does.
    """
    where = uri(home)
    if where.startswith("sqlite:///") and (database := Database(Path(where.removeprefix("sqlite:///")))).is_supported():
        return cast("MlflowClient", database)  # it supports the queries of the functions below
    return reach(home)


def _is_absent(error: Exception) -> bool:
    """Whether MLflow, or our reader of its database, reports that there is no such thing."""
    return getattr(error, "error_code", None) == Absent.error_code


@answered
def run_facts(connected: MlflowClient, run_id: str) -> dict[str, Any] | None:
    """Return name, parameters, metrics, tags and inputs of a run; None when there is no such run, or it was deleted."""
    try:
        run = connected.get_run(run_id)
    except Exception as error:
        if _is_absent(error):
            return None
        raise
    if run.info.lifecycle_stage != "active":
        return None
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {
        "name": run.info.run_name,
        "experiment_id": str(run.info.experiment_id),
        "started": run.info.start_time,
        "status": run.info.status,
        "params": dict(run.data.params),
        "metrics": without_nan(dict(run.data.metrics)),
        "tags": dict(run.data.tags),
        "inputs": sorted([entry.dataset.name, entry.dataset.digest, entry.dataset.source] for entry in inputs),
    }


@answered
def version_facts(connected: MlflowClient, name: str, version: str) -> dict[str, Any] | None:
    """Return what the registry records about a version; None when there is no such version."""
    try:
        found = connected.get_model_version(name, version)
    except Exception as error:
        if _is_absent(error):
            return None
        raise
    return {
        "name": found.name,
        "version": str(found.version),
        "source": found.source,
        "run_id": found.run_id,
        "description": found.description or "",
        "created": found.creation_timestamp,
        "tags": dict(found.tags),
    }


@answered
def aliases(connected: MlflowClient, name: str) -> dict[str, str]:
    """Return alias -> version of a registered model; empty when there is no such model."""
    model = _registered(connected, name)
    return {alias: str(version) for alias, version in model.aliases.items()} if model else {}


@answered
def set_alias(connected: MlflowClient, name: str, alias: str, version: str | None) -> None:
    """Point an alias at a version; None removes it."""
    if version is None:
        connected.delete_registered_model_alias(name, alias)
    else:
        connected.set_registered_model_alias(name, alias, version)


@answered
def tag_version(connected: MlflowClient, name: str, version: str, key: str, value: str) -> None:
    connected.set_model_version_tag(name, version, key, value)


@answered
def resolve(connected: MlflowClient, name: str) -> str:
    """Return the id of the run that made a version: ``models:/name/3`` or ``models:/name@alias``. Raises `MeguError` when there is
    none."""
    from megu.tracking.versions import find_version

    return str(find_version(connected, name, "lineage").run_id)


@answered
def head(connected: MlflowClient, name: str) -> tuple[str, str] | None:
    """Return the run id and the seal of a registered model's newest dossier; None when it has none."""
    model = _registered(connected, name)
    run_id, _, seal = (model.tags if model else {}).get(HEAD_TAG, "").partition(" ")
    return (run_id, seal) if seal else None


def _registered(connected: MlflowClient, name: str) -> Any:
    """Return a registered model; None when there is no such model."""
    try:
        return connected.get_registered_model(name)
    except Exception as error:
        if _is_absent(error):
            return None
        raise


@answered
def set_head(connected: MlflowClient, name: str, run_id: str, seal: str) -> None:
    connected.set_registered_model_tag(name, HEAD_TAG, f"{run_id} {seal}")


@contextmanager
def run_files(connected: MlflowClient, run_id: str) -> Iterator[Path | None]:
    """Yield the folder of a run's artifacts; None when they are gone. Those of a remote store are fetched into a temporary folder."""
    with _local(connected, str(connected.get_run(run_id).info.artifact_uri)) as folder:
        yield folder


@contextmanager
def version_files(connected: MlflowClient, source: str) -> Iterator[Path | None]:
    """Yield the folder of a version's files, by the version's source; None when they are gone."""
    place = source
    if source.startswith("models:/m-"):
        try:
            place = str(connected.get_logged_model(source.removeprefix("models:/")).artifact_location)
        except Exception as error:
            if not _is_absent(error):
                raise
            place = ""
    with _local(connected, place) as folder:
        yield folder


@contextmanager
def _local(connected: MlflowClient, place: str) -> Iterator[Path | None]:
    address = urlparse(place)
    if not place or address.scheme in ("", "file"):
        folder = Path(unquote(address.path))
        yield folder if place and folder.is_dir() else None
        return
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    use(connected.tracking_uri)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            fetched = mlflow.artifacts.download_artifacts(place, dst_path=temporary, tracking_uri=connected.tracking_uri)
        except (MlflowException, OSError):
            fetched = None
        yield Path(fetched) if fetched else None


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def compiled(folder: Path, files: Collection[str]) -> tuple[set[str], list[str]]:
    """Return the bytecode files that Python left beside sources it has run, and those of them that do not match their source.

    Loading a version from a local store leaves them. Python runs them instead of the source, so a manipulated one matters.
    """
    left = {path for path in files if Path(path).parent.name == "__pycache__" and path.endswith(".pyc")}
    return left, sorted(path for path in left if not _as_its_source(folder / path))


#: The file in which MLflow notes which version it serves from a store on this machine: in the version's own folder.
_NOTE = "registered_model_meta"


def noted(folder: Path, name: str, version: str) -> set[str]:
    """Return the note that ``mlflow models serve`` leaves among a version's files, if it contains this version and nothing else."""
    import yaml

    try:
        said = yaml.safe_load((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return set()
    return {_NOTE} if said == {"model_name": name, "model_version": version} else set()


def _as_its_source(path: Path) -> bool:
    source = path.parent.parent / f"{path.name.split('.')[0]}.py"
    if path != Path(importlib.util.cache_from_source(str(source))):
        return False  # of another Python version: this one cannot tell
    content = path.read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / "again.pyc"
        try:
            py_compile.compile(str(source), cfile=str(again), doraise=True)
        except (OSError, py_compile.PyCompileError):
            return False
        return content[16:] == again.read_bytes()[16:]
