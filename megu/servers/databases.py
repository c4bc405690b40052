"""The databases that MLflow and Prefect keep in the project's home, created whole or not at all.

By themselves, both create theirs table by table under its final name: a full disk or a kill leaves one that neither accepts any more,
and two simultaneous first runs get in each other's way. Here a database is created under another name, by one process at a time, and
renamed.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from shlex import quote
from typing import Literal

from megu.core.errors import MeguError
from megu.core.files.writable import explained

#: absent; half-made: unfinished and empty; whole; older, newer: made by another version of the package, and not empty.
State = Literal["absent", "half-made", "whole", "older", "newer"]

_MAKE_S = 600.0
#: Maximum number of bytes that creating one takes.
_NEEDS = 4_000_000
#: Suffixes of the files that SQLite keeps beside a database.
_BESIDE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Database:
    """title, package: its owner. migrations: the package's folder of migrations. seeded: tables that creating it fills. make: creates
    one at a path, or upgrades an older one. upgrade: the command with which a person does the latter; empty if ``make`` may do it."""

    title: str
    package: str
    migrations: str
    seeded: frozenset[str]
    make: Callable[[Path], None]
    upgrade: str = ""


def _make_mlflow(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Beside the database, like everything that a run logs; for the experiment "Default", which nothing here uses.
    store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
        f"sqlite:///{path}", (path.parent / "mlartifacts").as_uri()
    )
    store.engine.dispose()


def _make_prefect(path: Path) -> None:
    """Run Prefect's own command in a separate process: its server's code takes seconds to import, and nothing else here needs it."""
    environment = {
        name: value for name, value in os.environ.items() if "DATABASE" not in name or not name.startswith("PREFECT_")
    }
    environment |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "database", "upgrade", "-y"]
    done = subprocess.run(
        command,
        cwd=path.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_MAKE_S,
        check=False,
    )
    if done.returncode:
        said = [
            line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if re.search(r"\w*(Error|Exception)\b", line)
        ]
        raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")


MLFLOW = Database(
    title="MLflow",
    package="mlflow",
    migrations="store/db_migrations/versions",
    seeded=frozenset({"workspaces"}),
    make=_make_mlflow,
    upgrade="mlflow db upgrade sqlite:///{}",
)
PREFECT = Database(
    title="Prefect",
    package="prefect",
    migrations="server/database/_migrations/versions/sqlite",
    seeded=frozenset(),
    make=_make_prefect,
)


def mlflow_path(home: Path) -> Path:
    return home / "mlflow.db"


def refuse_unusable_mlflow(home: Path) -> None:
    """Raise `MeguError` if the project's own database is to be used and cannot be; creates none."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        usable(MLFLOW, mlflow_path(home))


def ensure_of_server(home: Path, name: str) -> None:
    """Ensure the database of a server that `megu up` starts. Raises `MeguError` as `ensure` does."""
    if name == "prefect":
        ensure(PREFECT, home / "prefect" / "prefect.db")
    else:
        ensure(MLFLOW, mlflow_path(home))


def ensure_own_prefect(home: Path) -> None:
    """Ensure the database of the temporary server that Prefect starts if no server is specified. home: Prefect's, without $PREFECT_HOME.

    Raises `MeguError` as `ensure` does. Does nothing if the environment specifies a server, or another database.
    """
    named = ("PREFECT_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    if not any(os.environ.get(name) for name in named):
        ensure(PREFECT, Path(os.environ.get("PREFECT_HOME") or home) / "prefect.db")


def ensure(database: Database, path: Path) -> None:
    """Create the database if it is absent or half-made; wait for another process that is creating it.

    Raises `MeguError` when it cannot be created (a full disk, an unwritable folder: nothing is left behind), cannot be read, or
    is of another version of the package.
    """
    from megu.core.files.locks import file_lock

    if usable(database, path):
        return None
    temporary = path.with_name(f".{path.name}.making")
    try:
        with file_lock(path.with_name(f".{path.name}.lock")):
            if usable(database, path):
                return None
            if state(database, path) == "older":
                return database.make(path)
            _remove(temporary)  # of a process that was killed while creating it
            _remove(path)
            try:
                database.make(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                _remove(temporary)
    except MeguError:
        raise
    except Exception as error:
        raise _explained(database, path, error) from error


def usable(database: Database, path: Path) -> bool:
    """Whether the database exists and is whole; False if `ensure` would create it. Raises `MeguError` as `ensure` does."""
    match state(database, path):
        case "older" if database.upgrade:
            command = database.upgrade.format(path)
            raise MeguError(f"{path} was made by an older {database.title}", f"make a copy of it, then run `{command}`")
        case "newer":
            raise MeguError(
                f"{path} was made by a newer {database.title} than the one installed",
                f"install that {database.title}, or move it away",
            )
        case found:
            return found == "whole"


def state(database: Database, path: Path) -> State:
    """Return the database's state. Raises `MeguError` for a file that is not a database, or that cannot be read."""
    if not os.path.lexists(path):
        return "absent"
    try:
        with contextlib.closing(_opened(path)) as opened:
            tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            revisions = (
                opened.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
            )
            filled = any(
                opened.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()
                for name in tables
                if name not in database.seeded and name != "alembic_version" and not name.startswith("sqlite_")
            )
    except sqlite3.Error as error:
        aside = f"{quote(str(path))} {quote(f'{path}.old')}"
        raise MeguError(
            f"{database.title}: {path} cannot be used: {error}", f"make it readable and writable, or move it away: mv {aside}"
        ) from None
    known = _revisions(database)
    revision = revisions[0][0] if revisions else None
    if revision is not None and (not known or revision in _heads(known)):
        return "whole"
    if not filled:
        return "half-made"
    return "older" if revision is None or revision in known else "newer"


def _opened(path: Path) -> sqlite3.Connection:
    """Open for reading; as a writer if possible, since what a killed writer left has to be rolled back first."""
    where = path.absolute().as_uri()
    try:
        opened = sqlite3.connect(f"{where}?mode=rw", uri=True, timeout=30)
        opened.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        opened = sqlite3.connect(f"{where}?mode=ro", uri=True, timeout=30)
    return opened


def _revisions(database: Database) -> dict[str, tuple[str, ...]]:
    """Return each schema revision that the installed package knows, with its predecessors; empty if they cannot be found."""
    spec = util.find_spec(database.package)
    if spec is None or not spec.origin:
        return {}
    found = {}
    for file in (Path(spec.origin).parent / database.migrations).glob("*.py"):
        text = file.read_text(encoding="utf-8")
        own = re.search(r"^revision\b[^=\n]*= *[\"'](\w+)[\"']", text, re.MULTILINE)
        before = re.search(r"^down_revision\b[^=\n]*= *(None|[\"'][^\"'\n]+[\"']|\([^)]*\))", text, re.MULTILINE)
        if own and before:
            value = ast.literal_eval(before.group(1)) or ()
            found[own.group(1)] = (value,) if isinstance(value, str) else tuple(value)
    return found


def _heads(known: dict[str, tuple[str, ...]]) -> set[str]:
    return set(known) - {name for before in known.values() for name in before}


def _remove(path: Path) -> None:
    for end in ("", *_BESIDE):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)


def _explained(database: Database, path: Path, error: Exception) -> MeguError:
    if isinstance(error, subprocess.TimeoutExpired):
        return MeguError(f"{database.title}'s {path} was not made in {_MAKE_S:.0f} s", "run again on a less busy machine")
    # SQLite calls a full disk by several names, such as "disk I/O error".
    if path.parent.is_dir() and shutil.disk_usage(path.parent).free < _NEEDS:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    said = next(iter(str(getattr(error, "orig", None) or error).strip().splitlines()), type(error).__name__)
    return explained(error, path) or MeguError(
        f"{database.title}'s {path} could not be made: {said}", f"see that {path.parent} can be written"
    )
