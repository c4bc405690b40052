"""Runs whose process ended without notice, by ``kill -9`` or a power cut: MLflow would show them as RUNNING forever.

Every run has a tag with the process it belongs to. The next run, `megu doctor` and `megu purge` look for runs of dead processes, and mark
them KILLED, with a tag that explains it. A process of this project is dead when nobody holds its lock (`megu.core.files.liveness`), which
works in every container; one of another project, or of an older version of megu, when this machine has no such process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from megu.core.files import liveness
from megu.tracking import answered

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROCESS_TAG, ORPHAN_TAG = "megu.process", "megu.orphan"


def this_process(home: Path) -> str:
    """Return a name for this process: machine, process id, start time (ids are reused), and its name in the project."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f} {liveness.hold(home)}"


def dead(process: str, home: Path) -> bool:
    """Whether a process, as `this_process` named it, has ended. Nobody here can tell for another project's process on another machine."""
    try:
        machine, number, began, *name = process.split(" ")
        if name and (alive := liveness.lives(home, name[0])) is not None:
            return not alive
        if machine != socket.gethostname():
            return False
        return bool(abs(psutil.Process(int(number)).create_time() - float(began)) > 1.0)
    except psutil.NoSuchProcess:
        return True
    except ValueError:
        return False


@answered
def running(connected: MlflowClient) -> list[str]:
    """Return the ids of all runs that MLflow shows as running, and that name their process."""
    return [run_id for run_id, _ in _running(connected)]


@answered
def close(connected: MlflowClient, home: Path) -> list[str]:
    """Mark the runs of dead processes as KILLED; return their ids."""
    marked = []
    for run_id, process in _running(connected):
        if dead(process, home):
            when = datetime.now(UTC).isoformat(timespec="seconds")
            connected.set_tag(run_id, ORPHAN_TAG, f"its process ended without a word ({process}); found {when}")
            connected.set_terminated(run_id, "KILLED")
            marked.append(run_id)
    return marked


def orphaned(home: Path) -> list[str]:
    """Return the runs that `close` would mark, read from the project's own database: without MLflow, whose import takes seconds."""
    from megu.tracking.purging import database

    path = database(home)
    if path is None or not path.is_file():
        return []
    query = (
        "SELECT r.run_uuid, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid WHERE r.status = 'RUNNING' AND t.key = ?"
    )
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as opened:
            return [run_id for run_id, process in opened.execute(query, (PROCESS_TAG,)) if dead(process, home)]
    except sqlite3.Error:  # an empty or foreign file, which is another finding
        return []


def _running(connected: MlflowClient) -> list[tuple[str, str]]:
    experiments = [entry.experiment_id for entry in connected.search_experiments()]
    if not experiments:
        return []
    found = connected.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=1000)
    return [(run.info.run_id, run.data.tags[PROCESS_TAG]) for run in found if PROCESS_TAG in run.data.tags]
