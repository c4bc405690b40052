"""Databases of MLflow and Prefect are made whole or not at all: on a full disk, by two at once, and over what was left half-made."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from new_databases import NAMES, PROGRAM, said_by_both
from small_disks import UNSHARED, on_a_small_disk

from megu.core.errors import MeguError
from megu.servers import databases as creation
from megu.servers.databases import MLFLOW, PREFECT, ensure, state
from megu.tracking.database import KNOWN

(HEAD,) = creation._heads(creation._revisions(MLFLOW))
OLDER = creation._revisions(MLFLOW)[HEAD][0]


def test_the_forms_that_the_installed_packages_make_are_read_from_their_files() -> None:
    assert HEAD == KNOWN
    assert len(creation._heads(creation._revisions(PREFECT))) == 1
    assert len(creation._revisions(PREFECT)) > 50


def with_tables(path: Path, revision: str | None, *, filled: bool) -> None:
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("CREATE TABLE experiments (name TEXT)")
        opened.execute("CREATE TABLE workspaces (name TEXT)")
        opened.execute("INSERT INTO workspaces VALUES ('default')")  # MLflow's steps fill it
        opened.execute("CREATE TABLE alembic_version (version_num TEXT)")
        if revision:
            opened.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        if filled:
            opened.execute("INSERT INTO experiments VALUES ('mine')")


#: What lies there -> what that is.
STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "absent"),
    "an empty file": (lambda path: path.touch(), "half-made"),
    "no revision yet": (lambda path: with_tables(path, None, filled=False), "half-made"),
    "half-way": (lambda path: with_tables(path, OLDER, filled=False), "half-made"),
    "of a revision nobody knows, with nothing in it": (lambda path: with_tables(path, "f" * 12, filled=False), "half-made"),
    "whole": (lambda path: with_tables(path, HEAD, filled=True), "whole"),
    "whole, with nothing in it yet": (lambda path: with_tables(path, HEAD, filled=False), "whole"),
    "older": (lambda path: with_tables(path, OLDER, filled=True), "older"),
    "newer": (lambda path: with_tables(path, "f" * 12, filled=True), "newer"),
}


@pytest.mark.parametrize("name", STATES)
def test_what_is_there_is_told_apart_and_only_what_holds_nothing_is_made_again(tmp_path: Path, name: str) -> None:
    make, expected = STATES[name]
    path = tmp_path / "mlflow.db"
    make(path)
    before = path.read_bytes() if path.exists() else b""
    assert state(MLFLOW, path) == expected
    made = replace(MLFLOW, make=lambda at: with_tables(at, HEAD, filled=False))
    if expected in ("older", "newer"):
        with pytest.raises(MeguError, match=f"made by an? {expected} MLflow") as error:
            ensure(made, path)
        assert ("mlflow db upgrade" in error.value.fix) == (expected == "older")
    else:
        ensure(made, path)
        assert state(MLFLOW, path) == "whole"
    if expected not in ("absent", "half-made"):
        assert path.read_bytes() == before


def test_an_older_one_is_brought_up_to_date_where_the_package_does_that_itself(tmp_path: Path) -> None:
    path, asked = tmp_path / "prefect.db", []
    with_tables(path, OLDER, filled=True)
    ensure(replace(MLFLOW, upgrade="", make=asked.append), path)
    assert asked == [path]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no database at all", "file is not a database"), (b"SQLite format 3\0" + b"x" * 4096, "cannot be used")],
)
def test_what_is_no_database_is_left_alone_and_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(MeguError, match=said) as error:
        ensure(MLFLOW, path)
    assert f"mv {path}" in error.value.fix
    assert path.read_bytes() == content


def test_a_maker_that_fails_or_was_killed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    (tmp_path / ".mlflow.db.making").write_bytes(b"of a maker that was killed")

    def half(at: Path) -> None:
        with_tables(at, OLDER, filled=False)
        raise sqlite3.OperationalError("no such\nthing")

    with pytest.raises(MeguError, match="could not be made: no such"):
        ensure(replace(MLFLOW, make=half), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".mlflow.db.lock"]


def test_a_named_server_needs_no_database_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    creation.ensure_own_prefect(tmp_path / "prefect")
    assert not (tmp_path / "prefect").exists()
    monkeypatch.delenv("PREFECT_API_URL")
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.touch()

    monkeypatch.setattr(creation, "PREFECT", replace(PREFECT, make=make))
    creation.ensure_own_prefect(tmp_path / "prefect")
    assert made == [tmp_path / "prefect" / ".prefect.db.making"]


@pytest.mark.slow
def test_two_at_once_make_one_and_neither_fails(databases: Path) -> None:
    for name in NAMES:
        assert said_by_both(databases, name) == [["made\n", ""]] * 2
    assert state(MLFLOW, databases / "mlflow.db") == state(PREFECT, databases / "prefect.db") == "whole"
    left = {entry.name for entry in databases.iterdir()}
    assert left == {"mlflow.db", "prefect.db", ".mlflow.db.lock", ".prefect.db.lock"}


@pytest.mark.slow
@pytest.mark.skipif(not UNSHARED, reason="needs a small file system of its own, which this machine does not allow")
def test_a_full_disk_is_said_to_be_that_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    done = on_a_small_disk(tmp_path, "300k", [sys.executable, "-c", PROGRAM, str(tmp_path), *NAMES], after=f"ls -A {tmp_path}")
    said = done.stdout.splitlines()
    assert [line.startswith("the disk is full: ") for line in said[:2]] == [True, True], done
    assert sorted(said[2:]) == [".mlflow.db.lock", ".prefect.db.lock"]
