"""Everything MLflow: runs, what is logged to them, and the registry. Importing this is cheap; MLflow is imported on first use.

The active run of MLflow's fluent interface belongs to a thread, so a client with an explicit run id is used throughout.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from megu.core.errors import MeguError
from megu.servers import addresses
from megu.servers import databases as creation
from megu.servers.addresses import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

F = TypeVar("F", bound=Callable[..., Any])

_URI = addresses.MLFLOW
#: MLflow's own limits (mlflow.utils.validation): longer values are truncated, more entries are sent in several batches.
_VALUE, _TAG = 6000, 8000
#: Entries of each kind in one batch: at most 100 parameters and 100 tags, and 1000 of all kinds together.
_METRICS, _PARAMS = 800, 100


def uri(home: Path) -> str:
    """Return where runs are stored: ``$MLFLOW_TRACKING_URI`` if a team has set it, else a SQLite database in the project's home."""
    return os.environ.get(_URI) or _own(home)


def _own(home: Path) -> str:
    return f"sqlite:///{creation.mlflow_path(home)}"


def answered(function: F) -> F:
    """Turn exceptions of MLflow and its database into a one-line `MeguError`."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except MeguError:
            raise
        except sqlite3.Error as error:
            raise _mendable(str(error)) from error
        except Exception as error:
            # Imported only after an error: it takes seconds.
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            if isinstance(error, MlflowException):
                raise _mendable(str(error.message)) from error
            if isinstance(error, SQLAlchemyError):
                raise _mendable(str(getattr(error, "orig", None) or error)) from error
            raise

    return wrapper  # type: ignore[return-value]


def _mendable(message: str) -> MeguError:
    named = os.environ.get(_URI)
    # The end of MLflow's message when nobody answers, after a page of Python objects.
    if named and named.startswith("http") and "failed with exception" in message:
        return MeguError(
            f"the MLflow server at {shown(named)} does not answer",
            f"start it, or unset {_URI} to use the project's own database",
        )
    first = next(iter(message.strip().splitlines()), "it gave no reason")
    where = shown(named) if named else "the project's .megu/mlflow.db"
    return MeguError(f"MLflow: {first}", f"check that {where} can be reached and written")


def use(where: str) -> None:
    """Point the parts of MLflow that take no client (`Model.log`, `download_artifacts`) at ``where``.

    MLflow also writes it into the environment, where the next project of this process would mistake it for the team's choice.
    """
    import mlflow

    before = os.environ.get(_URI)
    mlflow.set_tracking_uri(where)
    if before is None:
        os.environ.pop(_URI, None)
    else:
        os.environ[_URI] = before


def warm_up() -> None:
    """Import MLflow now, and its store if the project's own database is used: seconds that would otherwise be part of the first
    tracked run."""
    import mlflow

    if not os.environ.get(_URI):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@answered
def client(home: Path) -> MlflowClient:
    """Return a client of the project's tracking store, which is created if missing (some seconds, once).

    Raises `MeguError` when the database cannot be used.
    """
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It prints the traceback of exceptions that it raises anyway, and that we handle.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # On a server, a run ends by printing two lines to standard output, which is for results.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    where = uri(home)
    if where.startswith("sqlite:///") and "?" not in where:
        # MLflow itself tries to open a database for 100 seconds before it gives up.
        creation.ensure(creation.MLFLOW, Path(where.removeprefix("sqlite:///")))
    elif where.startswith("http"):
        # The default retries for minutes before it reports that nobody answers.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    use(where)
    try:
        return MlflowClient(where)
    except ImportError as error:
        raise MeguError(f"{_URI} names {shown(where)}, whose driver is missing ({error})", "install it with pip") from None


class Run:
    """One MLflow run, by its id. Create it with `start`."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client = client
        self.id = run_id
        self.experiment_id = experiment_id

    @classmethod
    @answered
    def start(cls, home: Path, experiment: str, name: str, tags: Mapping[str, Any]) -> Run:
        """Start a new run, status RUNNING, in an experiment that is created when needed (its artifacts are then in the home).

        Runs whose process was killed are marked first: see `megu.tracking.orphans`.
        """
        connected = client(home)
        found = connected.get_experiment_by_name(experiment)
        if found is None:
            local = uri(home).startswith("sqlite")
            # The kind makes MLflow's pages open on models and runs, not on chat traces.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            experiment_id = connected.create_experiment(experiment, (home / "mlartifacts").as_uri() if local else None, kind)
        elif found.lifecycle_stage != "active":
            raise MeguError(
                f"the MLflow experiment {experiment!r} has been deleted", "restore it in MLflow, or rename registry.name"
            )
        else:
            experiment_id = found.experiment_id
        from megu.tracking import orphans

        orphans.close(connected, home)
        # What MLflow's table of runs shows in its columns Source and Version.
        source = {"mlflow.source.name": "megu", "mlflow.source.type": "LOCAL"}
        if tags.get("git.commit", "unknown") != "unknown":
            source["mlflow.source.git.commit"] = tags["git.commit"]
        own = {**source, **tags, orphans.PROCESS_TAG: orphans.this_process(home)}
        run = connected.create_run(experiment_id, run_name=name, tags={key: str(value)[:_TAG] for key, value in own.items()})
        begun = cls(connected, run.info.run_id, experiment_id)
        unfinished.append(begun)
        return begun

    @answered
    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log parameters (flatten nested names with dots first), metrics and tags, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        all_params = [Param(key, as_param(value)) for key, value in (params or {}).items()]
        all_metrics = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        all_tags = [RunTag(key, str(value)[:_TAG]) for key, value in (tags or {}).items()]
        while all_metrics or all_params or all_tags:
            self.client.log_batch(self.id, all_metrics[:_METRICS], all_params[:_PARAMS], all_tags[:_PARAMS])
            del all_metrics[:_METRICS], all_params[:_PARAMS], all_tags[:_PARAMS]

    @answered
    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Log the data set that was used. digest: DVC's directory hash (36 characters, MLflow's limit)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = Dataset(name, digest[:36], "dvc", json.dumps({"uri": source}))
        self.client.log_inputs(self.id, [DatasetInput(entry, [InputTag("mlflow.data.context", context)])])

    @answered
    def artifacts(self, contents: Mapping[str, bytes], folder: str | None = None) -> None:
        """Log several files at once, by name (slashes make folders)."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in contents.items():
                path = Path(temporary) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(self.id, temporary, folder)

    @answered
    def with_tag(self, name: str, value: str) -> str | None:
        """Return the id of a run of the same experiment that has this tag."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{name}` = '{value}'", max_results=1)
        return found[0].info.run_id if found else None

    @answered
    def finish(self, status: str = "FINISHED") -> None:
        """Finish the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.id, status)
        if self in unfinished:
            unfinished.remove(self)

    def url(self, server: str | None) -> str | None:
        """Return the run's page on an MLflow server, None without one."""
        base = server or (uri(Path()) if uri(Path()).startswith("http") else None)
        return f"{shown(base).rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.id}" if base else None


#: The runs that this process has started but not finished.
unfinished: list[Run] = []


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """Mark the run FAILED when the block raises, KILLED when it is stopped from outside (interrupted, suspended), FINISHED otherwise."""
    try:
        yield run
    except BaseException as error:
        # Report the original error, not that MLflow could not be told of it.
        with contextlib.suppress(MeguError):
            run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.finish()


def as_param(value: Any) -> str:
    """Return a parameter as MLflow stores it."""
    return str(value)[:_VALUE]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, names joined by dots."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = value
    return result


def fetch_model(name: str, folder: Path, *, home: Path, asked: str = "original.model") -> Path:
    """See `megu.tracking.registry.fetch_weights`."""
    from megu.tracking.registry import fetch_weights

    return fetch_weights(name, folder, home=home, asked=asked)


def identity(name: str, *, home: Path, asked: str = "original.model") -> tuple[str, str | None]:
    """See `megu.tracking.registry.identity`."""
    from megu.tracking import registry

    return registry.identity(name, home=home, asked=asked)


__all__: Sequence[str] = ["Run", "client", "closing", "fetch_model", "flat", "identity", "uri"]
