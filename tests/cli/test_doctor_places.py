"""What is wrong around a project is found by name, with the fix: each thing is broken for real, and the doctor's line is read."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from small_disks import UNSHARED, on_a_small_disk, read_only
from team_servers import MLFLOW, NAMES, PREFECT, SOUND, basic, serving

from megu.cli import doctor
from megu.cli.doctor import Check, check, packages
from megu.cli.doctor.check import Question, answers


@dataclass(frozen=True)
class Place:
    """A sound project, and what a case may break."""

    root: Path
    set: pytest.MonkeyPatch
    opened: ExitStack

    def git(self, *arguments: str, folder: Path | None = None) -> None:
        subprocess.run(["git", *arguments], cwd=folder or self.root, check=True, capture_output=True)

    def serve(self, variable: str, answers: dict[str, str], *header: tuple[str, str]) -> None:
        root = self.opened.enter_context(serving(answers, *header))
        self.set.setenv(variable, f"{root}/api" if variable == "PREFECT_API_URL" else root)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "http_proxy", "XDG_CONFIG_HOME", *NAMES):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.setenv(f"GIT_{who}_{what}", "a@b")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(packages, "_probe", lambda program: {"torch": (True, "2"), "torchvision": (True, "1")})
    root = tmp_path / "project"
    (root / ".megu" / "prefect").mkdir(parents=True)
    (root / "params.yaml").write_text("seed: 0\n")
    (root / ".gitignore").write_text("/.megu\n/.dvc\n")
    with ExitStack() as opened:
        made = Place(root, monkeypatch, opened)
        made.git("init", "-q")
        made.git("add", ".")
        made.git("commit", "-q", "-m", "start")
        yield made


def look(root: Path) -> dict[str, Check]:
    return {entry.name: entry for entry in doctor.checks(root, root / ".megu")}


def named(variable: str, value: str) -> Callable[[Place], None]:
    return lambda place: place.set.setenv(variable, value)


def silent(place: Place) -> None:
    """An address that takes connections and never says a word."""
    listening = place.opened.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    place.set.setattr("megu.servers.addresses.PATIENCE", 0.3)
    place.set.setenv("PREFECT_API_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/api")


def another_owner(place: Place) -> None:
    if os.geteuid():
        place.set.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    else:
        subprocess.run(["chown", "-R", "65534", str(place.root)], check=True)


def shallow(place: Place) -> None:
    place.git("commit", "-q", "--allow-empty", "-m", "more")
    place.git("clone", "-q", "--depth", "1", place.root.as_uri(), "../clone")
    shutil.rmtree(place.root / ".git")
    (place.root.parent / "clone" / ".git").rename(place.root / ".git")


def half_made(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        with closing(sqlite3.connect(place.root / ".megu" / name)) as opened, opened:
            opened.execute("CREATE TABLE experiments (name TEXT)")

    return make


def older_mlflow(place: Place) -> None:
    half_made("mlflow.db")(place)
    with closing(sqlite3.connect(place.root / ".megu" / "mlflow.db")) as opened, opened:
        opened.execute("INSERT INTO experiments VALUES ('mine')")


def damaged(place: Place) -> None:
    (place.root / ".megu" / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"x" * 4096)


def another_version(place: Place) -> None:
    real = metadata.version
    place.set.setattr(metadata, "version", lambda name: "1.0" if name == "pydantic" else real(name))


def dvc_config(text: str) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        (place.root / ".dvc").mkdir()
        (place.root / ".dvc" / "config").write_text(text)

    return write


#: What is broken -> the finding's name, ok, what it says, its fix.
CASES: dict[str, tuple[Callable[[Place], object], str, bool | None, str, str]] = {
    "prefect: nobody there": (
        named("PREFECT_API_URL", "http://127.0.0.1:9/api"),
        *("prefect server", False, "no Prefect server answers at http://127.0.0.1:9/api", "unset PREFECT_API_URL"),
    ),
    "prefect: no address": (
        named("PREFECT_API_URL", "localhost:4200/api"),
        *("prefect server", False, "is not the address of a server", "export PREFECT_API_URL=http://HOST:4200/api"),
    ),
    "prefect: silent": (silent, "prefect server", False, "no answer in", "unset PREFECT_API_URL"),
    "prefect: behind a login": (
        lambda place: place.serve("PREFECT_API_URL", SOUND, ("Authorization", basic("a:b"))),
        *("prefect server", False, r"refuses the login \(401\)", "PREFECT_API_AUTH_STRING"),
    ),
    "prefect: another major version": (
        lambda place: place.serve("PREFECT_API_URL", {"/api/admin/version": '"2.20.1"'}),
        *("prefect server", False, "they do not fit", "install Prefect 3"),
    ),
    "prefect: older": (
        lambda place: place.serve("PREFECT_API_URL", {"/api/admin/version": '"3.0.0"'}),
        *("prefect server", None, "older than the", "upgrade prefect"),
    ),
    "prefect: right": (
        lambda place: place.serve("PREFECT_API_URL", SOUND),
        *("prefect server", True, f"{re.escape(PREFECT)} at http", ""),
    ),
    "mlflow: nobody there": (
        named("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"),
        *("mlflow server", False, "no MLflow server answers at http://127.0.0.1:9", "unset MLFLOW_TRACKING_URI"),
    ),
    "mlflow: a folder": (
        named("MLFLOW_TRACKING_URI", "./mlruns"),
        *("mlflow server", False, "./mlruns is a folder", "unset MLFLOW_TRACKING_URI"),
    ),
    "mlflow: another major version": (
        lambda place: place.serve("MLFLOW_TRACKING_URI", SOUND | {"/version": "2.1.0"}),
        *("mlflow server", False, "they do not fit", "install MLflow 3"),
    ),
    "mlflow: right": (
        lambda place: place.serve("MLFLOW_TRACKING_URI", SOUND),
        *("mlflow server", True, f"{re.escape(MLFLOW)} at http", ""),
    ),
    "a package of another version": (
        another_version,
        "packages",
        False,
        "pydantic is 1.0, megu needs",
        "pip install 'pydantic",
    ),
    "git: another owner": (another_owner, "git", False, "another owner", "git config --global --add safe.directory"),
    "git: shallow": (shallow, "git", None, "shallow clone", "fetch --unshallow"),
    "mlflow.db: half-made": (half_made("mlflow.db"), "mlflow database", None, "is half-made", "rm /"),
    "prefect.db: half-made": (half_made("prefect/prefect.db"), "prefect database", None, "is half-made", "rm /"),
    "mlflow.db: older": (older_mlflow, "mlflow database", False, "made by an older MLflow", "mlflow db upgrade sqlite:///"),
    "mlflow.db: damaged": (damaged, "mlflow database", False, "cannot be used", "mv /"),
    "a remote that is gone": (
        dvc_config("['remote \"far\"']\n    url = /nowhere/at/all\n"),
        *("dvc stores", None, "far", "dvc remote list"),
    ),
    "a cache that others may use": (
        dvc_config("[cache]\n    dir = /tmp\n"),
        *("dvc stores", None, "^/tmp: it is outside of the project", "purge.shared_stores=true"),
    ),
    "a cache that is said to be shared": (
        dvc_config("[cache]\n    shared = group\n"),
        *("dvc stores", None, r"cache: cache\.shared is set", "purge.shared_stores=true"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_found_by_name_with_its_fix(case: str, place: Place) -> None:
    make, name, ok, said, fix = CASES[case]
    assert look(place.root)[name].ok
    make(place)
    found = look(place.root)
    assert found[name].ok is ok
    assert re.search(said, found[name].detail), found[name]
    assert fix in found[name].fix
    assert "\n" not in found[name].detail + found[name].fix
    others = [entry.name for entry in found.values() if entry.ok is False and entry.name != name]
    assert others == []


_PRINT = """
from pathlib import Path
from megu.cli.doctor import places
from megu.cli.doctor.check import Question, answers
from megu.core.project import Project
project = Project(Path.cwd())
questions = [
    Question(("home",), lambda: [places.writable(project)]), Question(("disk",), lambda: [places.disk(project.home)])
]
for check in answers(questions).values():
    print(check.name, check.ok, check.detail, "->", check.fix)
"""


@pytest.mark.skipif(not UNSHARED, reason="needs mounts of its own, which this machine does not allow")
def test_a_read_only_project_and_a_full_disk_are_found(place: Place) -> None:
    command = [sys.executable, "-c", _PRINT]
    closed = read_only(place.root, command).stdout
    assert "home False" in closed
    assert "its file system is read-only" in closed
    full = on_a_small_disk(place.root / ".megu", "40k", ["sh", "-c", 'cd ..; exec "$@"', "sh", *command]).stdout
    assert "home False the disk is full" in full
    assert "disk False 0.0 GB free" in full


def test_a_question_that_does_not_end_is_given_up_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    found = answers(
        [
            Question(("slow", "and its other"), lambda: time.sleep(60) or [], limit=0.2),
            Question(("quick",), lambda: [Check("quick", True, "yes")]),
        ]
    )
    assert time.monotonic() - started < 10
    assert found["quick"].ok
    assert [found[name].detail for name in ("slow", "and its other")] == ["it did not answer within 0 s"] * 2
    program = "import time; from megu.cli.doctor.check import *; answers([Question(('a',), lambda: time.sleep(60), 0.1)]); print('done')"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False).stdout
        == "done\n"
    )


def test_each_question_has_a_limit() -> None:
    assert check.Question(("a",), list).limit <= 60
