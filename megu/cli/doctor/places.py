"""Where a project stores things: git, the disk, what can be written, the databases, and what a purge can reach."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from shlex import quote

from megu.cli.doctor.check import Check
from megu.core.files.writable import refuse_unwritable
from megu.core.processes import git
from megu.core.project import Project
from megu.servers import databases as creation

_FREE = 2 * 10**9
_GIT_S = 5.0


def code(root: Path) -> Check:
    code = git.checkout(root, timeout=_GIT_S)
    if code.commit is None:
        optional = code.why in (git.NO_REPOSITORY, git.NO_COMMIT)
        return Check("git", None if optional else False, f"a run could not record which code produced it: {code.why}", code.fix)
    if code.shallow:
        detail = f"commit {code.commit[:10]} of a shallow clone: runs of earlier commits cannot be verified here"
        return Check("git", None, detail, f"git -C {quote(str(root))} fetch --unshallow")
    changed = {
        True: ", with changes that are not committed",
        None: ", and git did not say in time whether anything is changed",
    }
    return Check("git", True, f"commit {code.commit[:10]}{changed.get(code.dirty, '')}")


def disk(home: Path) -> Check:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free for {home}"
    if free < _FREE:
        return Check(
            "disk",
            False,
            f"{detail}; a run with its history wants {_FREE / 1e9:.0f} GB",
            f"du -sh {quote(str(home))}/* | sort -h",
        )
    return Check("disk", True, detail)


def writable(project: Project) -> Check:
    """Try each folder that commands write to, with an unnamed file that is gone at once; for files, only check the permissions."""
    folders = [project.root, project.home, *(project.root / name for name in ("data", "results", ".dvc"))]
    refuse_unwritable(*(folder for folder in folders if folder in (project.root, project.home) or folder.is_dir()))
    files = [
        project.root / "data.dvc",
        project.ledger.path,
        creation.mlflow_path(project.home),
        project.home / "prefect" / "prefect.db",
    ]
    closed = [file for file in files if file.exists() and not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        return Check("home", False, f"{closed[0]} cannot be read and written", f"sudo chown $USER {quote(str(closed[0]))}")
    return Check("home", True, f"{project.home}" + ("" if project.home.is_dir() else " (made by the first run)"))


def database(project: Project, kind: creation.Database) -> Check:
    """Check one of the project's own: whole, absent (a run creates it), half-made, or of another version."""
    name = f"{kind.package} database"
    path = creation.mlflow_path(project.home) if kind.package == "mlflow" else project.home / "prefect" / "prefect.db"
    where = project.relative(path)
    match creation.state(kind, path):
        case "absent":
            return Check(name, True, f"{where} is made by the first run")
        case "half-made":
            detail = f"{where} is half-made: its creation was stopped, and nothing is in it; a run creates it anew"
            return Check(name, None, detail, f"rm {quote(str(path))}")
        case "older" if not kind.upgrade:
            return Check(name, True, f"{where} was made by an older {kind.title}; a run upgrades it")
    creation.usable(kind, path)
    return Check(name, True, where)


def dvc(project: Project) -> Check:
    """Check what a purge cannot reach: a remote that is missing, a cache or remote that other projects may use."""
    from megu.erasure.search import stores
    from megu.lineage.purged import locations as places

    remotes = places.remotes(project.root)
    if missing := places.missing(remotes):
        return Check(
            "dvc stores", None, f"{missing[0]}: a purge can neither erase nor verify anything there", "dvc remote list"
        )
    for store in stores.every(project):
        if store.shared:
            detail = f"{store.folder}: {store.shared}, so other projects may use it, and a purge removes nothing there"
            return Check("dvc stores", None, detail, "megu purge --set purge.shared_stores=true, if none does")
    return Check("dvc stores", True, f"{len(remotes)} remotes; any kind of link can be purged")
