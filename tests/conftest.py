"""Fixtures that more than one room uses. Real Prefect: one temporary server for the whole session of a worker."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

# A shell starts what runs in the background deaf to Ctrl-C, and the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup does the same to what ends with its terminal

# As most people have it: the hundreds of processes here would compile all that they import, and what Python leaves beside a source is met.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Several workers share two cores: one thread each, set before torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _quiet in ("PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_LOGGING_TO_API_ENABLED"):
    os.environ[_quiet] = "false"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
# A server enters the kinds of blocks that its pages offer into its database at each start, for more than a second; nothing here has blocks.
os.environ["PREFECT_API_BLOCKS_REGISTER_ON_START"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"

from data_fixtures import fashion_mnist, fashion_mnist_project  # noqa: E402 - the environment comes first
from hypothesis import HealthCheck, settings  # noqa: E402
from lineage_fixtures import finished  # noqa: E402
from new_databases import MLFLOW, NAMES, PREFECT, made  # noqa: E402

# Examples may take their time on a busy machine; pytest-timeout stops what hangs.
settings.register_profile("megu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("megu")

#: The groups of tests that need a Prefect server: each runs in one worker.
SERVED = ("flow", "scope with a labeler", "scope without one")

__all__ = ["fashion_mnist", "fashion_mnist_project", "finished"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: begun last, one of them keeps one worker for minutes when the other has nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays, and the garbage collector need not look for any in it: neither now nor, again and again, later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Prefect server with a database of its own; at most one for each of the groups that need one, or the groups do not hold."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing import utilities

    if "PYTEST_XDIST_WORKER" in os.environ:
        servers = _shared(tmp_path_factory, "prefect-servers")
        (servers / os.environ["PYTEST_XDIST_WORKER"]).touch()
        assert len(list(servers.iterdir())) <= len(SERVED), "a test that needs the server is in none of its groups"
    new = made(_shared(tmp_path_factory, "databases"), PREFECT)

    def with_a_database() -> str:
        """The server takes what it finds there, and five seconds to make its own."""
        folder = tempfile.mkdtemp()
        shutil.copyfile(new, Path(folder) / "prefect-test.db")
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", with_a_database)
        # The thread that sends a flow's heartbeats looks once a second whether the flow has ended, and each flow waits for it.
        patched = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with utilities.prefect_test_harness(server_startup_timeout=120), patched:
            yield


@pytest.fixture
def project(tmp_path: Path):  # type: ignore[no-untyped-def]
    from megu.core.project import Project

    (tmp_path / "params.yaml").write_text("seed: 0\n")
    return Project(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def no_project_of_the_shell() -> None:
    """What a person's shell says of projects and trackers is not the tests'."""
    for name in ("MEGU_PROJECT", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with new databases, mlflow.db and prefect.db, for the projects of other processes; made once for all workers."""
    folder = _shared(tmp_path_factory, "databases")
    for name in NAMES:
        made(folder, name)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_database_of_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes more than a second to make a database: those of new projects are copies of the first one."""
    from megu.servers import databases as creation

    folder = _shared(tmp_path_factory, "databases")

    def copied(path: Path) -> None:
        shutil.copyfile(made(folder, MLFLOW), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(creation, "MLFLOW", replace(creation.MLFLOW, make=copied))
        # That of a temporary Prefect server is left to the server: most tests have one server for all of them.
        patch.setattr(creation, "PREFECT", replace(creation.PREFECT, make=Path.touch))
        yield


def _shared(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of the session that all its workers have."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def sketched() -> Iterator[Callable[..., dict[str, bytes]]]:
    """Runs have a grey square for each figure: to draw takes half of a small run. Yields what draws, for the run that is looked at whole."""
    from io import BytesIO

    from PIL import Image

    from megu.report import figures

    content = BytesIO()
    Image.new("L", (8, 8), 128).save(content, "PNG")

    def sketch(data: figures.FigureData) -> dict[str, bytes]:
        needs = {"samples": data.samples, "transition": data.transition, "noise": data.noise}
        names = ("per-class-accuracy", "samples", "entanglement", "transition", "noise", "confidence", "entropy")
        return {name: content.getvalue() for name in names if needs.get(name, data) is not None}

    with pytest.MonkeyPatch.context() as patch:
        really = figures.draw
        patch.setattr(figures, "draw", sketch)
        yield really
