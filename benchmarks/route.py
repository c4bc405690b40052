"""Where the name of a class that is to be forgotten goes, from ``megu process`` to the certificate: which files, and how often back.

    python benchmarks/route.py

A visit is a call of a function of the project that is given the name, alone, among the names of its request, or in the request's scope.
Files whose functions treat any text or value alike (its spelling, escaping, limits, JSON) are passed through and not counted, nor is the
scope's own. Every call is watched, so the run is slow; its data set is made up and its networks are trained on 20 images. Prints
each visit in order, how many files they are, and how many visits are to a file that the name had left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.overhead import make_project  # noqa: E402 - the folder above comes first

OURS = tuple(f"{ROOT / name}{os.sep}" for name in ("megu", "tasks", "flows"))
ANY_TEXT = (
    "megu/core/",
    "megu/data/naming.py",
    "megu/data/scope.py",
    "megu/report/figures.py",
    "megu/report/templates.py",
    "megu/tracking/",
)
NAME = "a"
SCOPES = ("RequestScope", "ForgetParams")


def holds(value: Any) -> bool:
    """Whether a value is the name, the names of its request, or its scope."""
    if isinstance(value, (tuple, list, set, frozenset)):
        return set(map(type, value)) == {str} and set(value) == {NAME}
    return value == NAME if type(value) is str else type(value).__name__ in SCOPES and value.classes == (NAME,)


def main() -> None:
    visits: list[tuple[str, str]] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(holds(frame.f_locals.get(name)) for name in names):
                visits.append((Path(code.co_filename).relative_to(ROOT).as_posix(), code.co_name))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        os.chdir(root)
        asked = ("request", "add", "--class", NAME, "--requester", "data-subject", "--basis", "gdpr-17-1-b")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "megu", *asked], check=True, env=environment, stdout=subprocess.DEVNULL)
        from megu.cli.main import main as megu

        threading.setprofile(look)
        sys.setprofile(look)
        for command in ("process", "certificate"):
            run = [folder.name for folder in root.glob("results/dossiers/*")] if command == "certificate" else []
            sys.argv = ["megu", command, *run, *(["--set", "promotion.ladder={when: never}"] if not run else [])]
            try:
                megu()
            except SystemExit as end:
                if end.code:
                    raise
        sys.setprofile(None)
        threading.setprofile(None)
    counted = [(file, name) for file, name in visits if not file.startswith(ANY_TEXT)]
    stays = [file for file, _ in groupby(counted, key=lambda visit: visit[0])]
    for number, file in enumerate(stays, 1):
        print(f"{number:3}. {file}{'' if file not in stays[: number - 1] else ' (back)'}")
    for file in dict.fromkeys(stays):
        print(f"{file}: {', '.join(sorted({name for other, name in counted if other == file}))}")
    print(f"{len(set(stays))} files, {len(stays) - len(set(stays))} times back")


if __name__ == "__main__":
    main()
