"""What a killed process leaves on disk: files and folders under a temporary name, which it would have renamed or removed, and checkpoints
that no run has resumed.

Nothing refers to them. But they take space, and an erasure would miss what they contain.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from megu.core.files import temporary
from megu.core.project import Project

#: Days after which nobody is expected to resume a stopped training.
CHECKPOINT_DAYS = 30


def left(project: Project) -> list[Path]:
    """Return files and folders under a temporary name whose owner is dead (`megu.core.files.temporary`), and old checkpoints."""
    found = [path for path in _temporary(project) if temporary.abandoned(path)]
    return sorted(found + [path for path in project.checkpoints.glob("*.safetensors") if _old(path)])


def sweep(project: Project) -> list[Path]:
    """Remove what `left` finds, and return it."""
    found = left(project)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _temporary(project: Project) -> Iterator[Path]:
    # `megu.core.files.store.writing` (in the root and `.dvc`: `megu.scaffold`), `megu.data.writing.atomic_folder`,
    # `megu.data.sources.providers`, `megu.data.pins.write`.
    for folder in (project.home, project.dossiers.parent):
        yield from folder.rglob(".writing-*")
    for folder in (project.root / "data", project.dossiers, project.home):
        yield from (path for path in folder.glob(".*-*") if path.is_dir())
    for folder in (project.root, project.root / ".dvc"):
        yield from folder.glob(".writing-*")
    yield from project.root.glob(".splits-*")
    yield from project.root.glob(".data.dvc.*")


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > CHECKPOINT_DAYS * 86400
    except OSError:
        return False
