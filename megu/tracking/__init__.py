"""Everything MLflow: runs, what is logged to them, and the registry. Importing this is cheap; MLflow comes with the first use.

The active run of MLflow's fluent interface belongs to a thread, so a client bound to an explicit run id is used throughout.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from megu.errors import MeguError

if TYPE_CHECKING:
    from mlflow import MlflowClient

F = TypeVar("F", bound=Callable[..., Any])

#: MLflow's own limits (mlflow.utils.validation): longer values are cut, more entries are sent in several batches.
_VALUE, _TAG, _METRICS, _PARAMS = 6000, 8000, 1000, 100


def uri(home: Path) -> str:
    """Where runs are kept: ``$MLFLOW_TRACKING_URI`` when a team has set it, else a SQLite database in the project's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def client(home: Path) -> MlflowClient:
    """A client of the project's tracking store, which is created when it is not there (some seconds, once).

    Raises `MeguError` when a server is named and does not answer.
    """
    import mlflow
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    where = uri(home)
    if where.startswith("sqlite"):
        home.mkdir(parents=True, exist_ok=True)
    elif where.startswith("http"):
        # The default retries for minutes before it says that nobody is there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    mlflow.set_tracking_uri(where)
    return MlflowClient(where)


def answered(function: F) -> F:
    """Turn MLflow's exceptions into a `MeguError` of one line."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return function(*arguments, **named)
        except MlflowException as error:
            first = str(error.message).strip().splitlines()[0]
            where = os.environ.get("MLFLOW_TRACKING_URI", "the project's .megu/mlflow.db")
            raise MeguError(f"MLflow: {first}", f"check that {where} can be reached and written") from error

    return wrapper  # type: ignore[return-value]


class Run:
    """One MLflow run, by its id. Create it with `start`."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client = client
        self.id = run_id
        self.experiment_id = experiment_id

    @classmethod
    @answered
    def start(cls, home: Path, experiment: str, name: str, tags: Mapping[str, Any]) -> Run:
        """A new run, status RUNNING, in an experiment that is created when needed (its artifacts then lie in the home)."""
        connected = client(home)
        found = connected.get_experiment_by_name(experiment)
        if found is None:
            local = uri(home).startswith("sqlite")
            # The kind makes MLflow's pages open on models and runs, not on traces of a chat.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            experiment_id = connected.create_experiment(experiment, (home / "mlartifacts").as_uri() if local else None, kind)
        elif found.lifecycle_stage != "active":
            raise MeguError(
                f"the MLflow experiment {experiment!r} has been deleted", "restore it in MLflow, or rename registry.name"
            )
        else:
            experiment_id = found.experiment_id
        run = connected.create_run(experiment_id, run_name=name, tags={key: str(value)[:_TAG] for key, value in tags.items()})
        return cls(connected, run.info.run_id, experiment_id)

    @answered
    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Parameters (nested names joined by dots beforehand), metrics and tags, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        all_params = [Param(key, str(value)[:_VALUE]) for key, value in (params or {}).items()]
        all_metrics = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        all_tags = [RunTag(key, str(value)[:_TAG]) for key, value in (tags or {}).items()]
        for start in range(0, max(len(all_params), len(all_tags), 1), _PARAMS):
            batch = slice(start, start + _PARAMS)
            self.client.log_batch(self.id, all_metrics[:_METRICS] if not start else [], all_params[batch], all_tags[batch])

    @answered
    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Name the data set that went in. digest: DVC's directory hash (36 characters, MLflow's limit)."""
        import json

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
        """The id of a run of the same experiment that has this tag."""
        found = self.client.search_runs([self.experiment_id], f"tags.`{name}` = '{value}'", max_results=1)
        return found[0].info.run_id if found else None

    @answered
    def finish(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.id, status)

    def url(self, server: str | None) -> str | None:
        """The run's page on an MLflow server, None without one."""
        base = server or (uri(Path()) if uri(Path()).startswith("http") else None)
        return f"{base.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.id}" if base else None


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """Mark the run FAILED when the block raises, KILLED when it is interrupted, FINISHED otherwise."""
    try:
        yield run
    except (KeyboardInterrupt, SystemExit):
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = value
    return result


def fetch_model(name: str, folder: Path, *, home: Path) -> Path:
    """See `megu.tracking.registry.fetch_weights`."""
    from megu.tracking.registry import fetch_weights

    return fetch_weights(name, folder, home=home)


__all__: Sequence[str] = ["Run", "client", "closing", "fetch_model", "flat", "uri"]
