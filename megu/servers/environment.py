"""The environment in which Prefect and MLflow are started and imported: the project's home, quiet, and its own servers if they are
running."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress

from megu.core.project import Project
from megu.servers import services


def prepare_environment(project: Project, environ: MutableMapping[str, str] | None = None) -> None:
    """Point Prefect and MLflow at the project's home and keep them quiet; must run before either is imported.

    What the user has set is left unchanged, so a team's servers are used as soon as ``PREFECT_API_URL`` or
    ``MLFLOW_TRACKING_URI`` specify them; servers that `megu up` started come next.
    """
    environ = os.environ if environ is None else environ
    defaults = {
        "PREFECT_HOME": str(project.home / "prefect"),
        # The temporary server takes 10-20 s to start, more on a busy machine; Prefect's own limit is 20.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Kept in memory, the lease of a slot dies with a killed temporary server, and the slot stays taken in the database.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": services.LEASES,
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # megu queries git itself, and reports clearly when it is absent; MLflow's own import of GitPython warns at length.
        "GIT_PYTHON_REFRESH": "quiet",
    }
    # Prefect creates its own folder, but not the parent, and never starts without that.
    with suppress(OSError):  # commands that only read go on; those that write report it (`megu.core.files.writable`)
        project.home.mkdir(parents=True, exist_ok=True)
    api = services.endpoints(project.home).prefect_api
    if api:
        defaults["PREFECT_API_URL"] = api
    for name, value in defaults.items():
        environ.setdefault(name, value)
