"""One new database of MLflow and one of Prefect, which take ten seconds to make: copied for whoever needs one of their own.

Each is made by two processes at once, as two first runs in a project would; `tests/tracking/test_tracking_creation.py` looks at what came
of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from megu.core.files.locks import file_lock

#: Makes the databases of the given names in a folder; says what came of it, one line each.
PROGRAM = """
import sys
from pathlib import Path
from megu.core.errors import MeguError
from megu.servers import databases as creation
databases = {"mlflow.db": creation.MLFLOW, "prefect.db": creation.PREFECT}
folder, *names = sys.argv[1:]
for name in names:
    try:
        creation.ensure(databases[name], Path(folder) / name)
    except MeguError as error:
        print(error)
    else:
        print("made")
"""
MLFLOW, PREFECT = NAMES = ("mlflow.db", "prefect.db")


def made(folder: Path, name: str) -> Path:
    """The database of that name in ``folder``; whoever comes first makes it, for all workers."""
    said = _said(folder, name)
    with file_lock(said.with_suffix(".lock")):
        if not said.exists():
            folder.mkdir(exist_ok=True)
            command = [sys.executable, "-c", PROGRAM, str(folder), name]
            both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
            said.write_text(json.dumps([process.communicate(timeout=280) for process in both]))
    return folder / name


def said_by_both(folder: Path, name: str) -> list[list[str]]:
    """What the two processes that made it wrote to their standard output and error."""
    return json.loads(_said(folder, name).read_text())  # type: ignore[no-any-return]


def _said(folder: Path, name: str) -> Path:
    """Beside the folder, in which nothing may be left but the databases and their locks."""
    return folder.with_name(f"{folder.name}-{name}.json")
