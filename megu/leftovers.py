"""What a killed process leaves: files and folders under a temporary name, which it would have renamed or removed, and Prefect's temporary
server, which it would have stopped.

Nothing refers to them. But they take room and memory, and what the files hold, an erasure would miss.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from megu.project import Project

#: Seconds without a change after which nobody is writing there any more: a file is written in one go.
QUIET_S = 60.0


def left(project: Project, quiet: float = QUIET_S) -> list[Path]:
    """What lies there under a temporary name and has not changed for ``quiet`` seconds."""
    now = time.time()
    return sorted(path for path in _temporary(project) if now - _changed(path) >= quiet)


def sweep(project: Project, quiet: float = QUIET_S) -> list[Path]:
    """Remove what `left` finds; returns it."""
    found = left(project, quiet)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _temporary(project: Project) -> Iterator[Path]:
    # `megu.store.writing`, `megu.data.arrays.atomic_folder`, `megu.data.pins.write`.
    for folder in (project.home, project.dossiers.parent):
        yield from folder.rglob(".writing-*")
    for folder in (project.root / "data", project.dossiers, project.home):
        yield from (path for path in folder.glob(".*-*") if path.is_dir())
    yield from project.root.glob(".splits-*")
    yield from project.root.glob(".data.dvc.*")


def _changed(path: Path) -> float:
    """When something in there last changed; now for what vanishes meanwhile."""
    try:
        times: list[float] = [entry.stat().st_mtime for entry in [path, *(path.rglob("*") if path.is_dir() else ())]]
        return max(times)
    except OSError:
        return time.time()


def abandoned_servers(project: Project) -> list[psutil.Process]:
    """Prefect's temporary servers over this project whose flow is gone. One that `megu up` started is no temporary one."""
    home, found = str(project.home / "prefect"), []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error, OSError):
            if "prefect.server.api.server:create_app" in (process.info["cmdline"] or ()):
                said, parent = process.environ(), process.parent()
                alone = parent is None or parent.pid == 1 or parent.name() in ("systemd", "init")
                if alone and said.get("PREFECT__SERVER_EPHEMERAL") == "1" and said.get("PREFECT_HOME") == home:
                    found.append(process)
    return found


def put_in_order(project: Project) -> None:
    """Remove and stop all of it."""
    sweep(project)
    for process in abandoned_servers(project):
        with contextlib.suppress(psutil.Error):
            process.terminate()
