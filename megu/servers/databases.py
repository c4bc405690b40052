"""The databases that MLflow and Prefect keep in the project's home, made whole or not at all.

Left to themselves, both make theirs table by table under its final name: a full disk or a kill leaves one that neither takes any more,
and two first runs at once get in each other's way. Here one is made under another name, by one process at a time, and renamed.
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

#: absent; half-made: not finished, and nothing is in it; whole; older, newer: made by another version of the package, with something in it.
State = Literal["absent", "half-made", "whole", "older", "newer"]

_MAKE_S = 600.0
#: Bytes that making one takes, at most.
_NEEDS = 4_000_000
#: What SQLite keeps beside a database.
_BESIDE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Database:
    """title, package: whose it is. migrations: the package's folder with the steps to the form it knows. seeded: tables that making
    fills. make: makes one at a path, or brings an older one up to date. upgrade: how a person does the latter; empty where ``make`` may.
    """

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
    # Beside the database, as everything that a run logs; for the experiment "Default", which nothing here uses.
    store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
        f"sqlite:///{path}", (path.parent / "mlartifacts").as_uri()
    )
    store.engine.dispose()


def _make_prefect(path: Path) -> None:
    """Prefect's own command, in a process of its own: its server's code takes seconds to import, which nothing else here needs."""
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
    """Raise `MeguError` where the project's own database is to be used and cannot be; makes none."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        usable(MLFLOW, mlflow_path(home))


def ensure_of_server(home: Path, name: str) -> None:
    """The database of a server that `megu up` starts. Raises `MeguError` as `ensure` does."""
    if name == "prefect":
        ensure(PREFECT, home / "prefect" / "prefect.db")
    else:
        ensure(MLFLOW, mlflow_path(home))


def ensure_own_prefect(home: Path) -> None:
    """The database of the temporary server that Prefect starts where no server is named. home: Prefect's, without $PREFECT_HOME.

    Raises `MeguError` as `ensure` does. Does nothing where the environment names a server, or another database.
    """
    named = ("PREFECT_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    if not any(os.environ.get(name) for name in named):
        ensure(PREFECT, Path(os.environ.get("PREFECT_HOME") or home) / "prefect.db")


def ensure(database: Database, path: Path) -> None:
    """Make the database where it is absent or half-made; wait for another process that is making it.

    Raises `MeguError` when it cannot be made (a full disk, a folder that cannot be written: nothing is left behind), cannot be read, or
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
            _remove(temporary)  # of a maker that was killed
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
    """Whether the database is there and whole; False where `ensure` would make it. Raises `MeguError` as `ensure` does."""
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
    """What is there now. Raises `MeguError` for a file that is no database, or that cannot be read."""
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
    """For reading; as a writer where that is possible, since what a killed writer left has to be rolled back first."""
    where = path.absolute().as_uri()
    try:
        opened = sqlite3.connect(f"{where}?mode=rw", uri=True, timeout=30)
        opened.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        opened = sqlite3.connect(f"{where}?mode=ro", uri=True, timeout=30)
    return opened


def _revisions(database: Database) -> dict[str, tuple[str, ...]]:
    """Each form that the installed package knows, by the forms it comes after; empty where they cannot be found."""
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
