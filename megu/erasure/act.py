"""Carry out a plan. Each action can be repeated: what is gone is done, so a purge that was killed resumes where it stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays, erasing, pins
from megu.data.arrays import FILES, SPLITS, Dataset
from megu.erasure.decisions import Action, Plan
from megu.erasure.forgotten import ForgottenSamples, Masks
from megu.erasure.search.scan import Scanner
from megu.lineage.commitments import commit
from megu.lineage.purged.document import DataErased

if TYPE_CHECKING:
    from megu.tracking.lineage import MlflowClient


def prepare_data(plan: Plan, found: ForgottenSamples, folder: Path) -> Plan:
    """Write the new versions of the data sets below ``folder``. Return the plan with their hashes."""
    for number, (dataset, masks) in enumerate(found.data):
        new = folder / dataset.path.name
        write_new(dataset, masks, new)
        plan.data[number] = replace(plan.data[number], after=vars(pins.hash_dir(new)))
    return plan


def write_new(dataset: Dataset, masks: Masks, new: Path) -> None:
    """Write the new version of a data set."""
    erasing.write_without(dataset, masks, new)
    _bring_along(dataset.path, new)


def _bring_along(old: Path, new: Path) -> None:
    """Copy everything else in a data set's folder unchanged."""
    for path in (path for path in old.iterdir() if not os.path.lexists(new / path.name)):
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def carry_out(
    project: Project, plan: Plan, prepared: Path, scanners: Sequence[Scanner], key: bytes, connected: MlflowClient | None
) -> None:
    """Carry out every action. Raises `MeguError` for what cannot be done now (a database in use, a file that may not be removed)."""
    for action in plan.actions:
        match action.kind:
            case "file":
                remove(project.root / action.what)
            case "cells":
                clean(project.root / action.what, scanners, key)
            case "data":
                swap(project, plan, action.what, prepared)
            case "version" if connected is not None:
                from megu.tracking.purging import delete_version

                name, _, version = action.what.removeprefix("models:/").rpartition("/")
                delete_version(connected, name, version, Path(action.folder) if action.folder else None)
            case "run":
                from megu.tracking.purging import forget_run

                shutil.rmtree(action.folder, ignore_errors=True)
                forget_run(project.home, action.what)
    if any(action.kind in ("run", "version") for action in plan.actions):
        vacuum(project.home / "mlflow.db")


def remove(path: Path) -> None:
    """Remove a file, and the folder that it leaves empty in a store of files by hash."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise MeguError(f"{path} cannot be removed ({error.strerror})", "make its folder writable and purge again") from None
    with contextlib.suppress(OSError):
        if len(path.parent.name) == 2:
            path.parent.rmdir()


def swap(project: Project, plan: Plan, name: str, prepared: Path) -> None:
    """Put the new version of a data set in its place, and pin it.

    If killed between the two, the next call corrects the pin. Where the old version has come back meanwhile, the new one is written again.
    """
    erased = next(each for each in plan.data if each.name == name)
    here, ready = project.data(name), prepared / name
    if not ready.is_dir() and _is_version(here, erased.before):
        _write_again(arrays.load(here), erased, ready)
    if ready.is_dir():
        if here.is_dir():
            _bring_along(here, ready)  # what was added since the purge was stopped
        if here.is_symlink():
            here.unlink()
        elif here.is_dir():
            shutil.rmtree(here)
        ready.rename(here)
    if not _is_version(here, erased.after):
        raise MeguError(
            f"data/{name} was changed while a purge was under way, and is neither its old version nor its new one",
            f"bring back the version {erased.after['md5']} or {erased.before['md5']}, and purge again; keep a copy of what is there elsewhere",
        )
    if name in pins.read(project.root):
        pins.write(project.root, name, pins.DirHash(**erased.after))


def _is_version(folder: Path, version: dict[str, Any]) -> bool:
    """Return whether a folder is a version of a data set, with or without other files in it."""
    return folder.is_dir() and version in (vars(pins.hash_dir(folder)), vars(pins.hash_dir(folder, only=FILES)))


def _write_again(dataset: Dataset, erased: DataErased, ready: Path) -> None:
    masks = {split: np.zeros(len(getattr(dataset, split)), dtype=bool) for split in SPLITS}
    for split, mask in masks.items():
        mask[getattr(erased, split).positions] = True
    shutil.rmtree(ready.with_suffix(".half"), ignore_errors=True)
    write_new(dataset, masks, ready.with_suffix(".half"))
    ready.with_suffix(".half").rename(ready)


def clean(database: Path, scanners: Sequence[Scanner], key: bytes) -> None:
    """Remove ids and images from the cells of a SQLite database, and what SQLite leaves of them in its free pages.

    An id is replaced by the beginning of its commitment, of the same length, so that the text around it stays as written.
    """
    if not database.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
            for table, columns in _columns(opened):
                for column in columns:
                    _clean_column(opened, table, column, scanners, key)
            opened.commit()
        vacuum(database)
    except sqlite3.OperationalError as error:
        raise MeguError(f"{database} cannot be cleaned ({error})", "stop what uses it (`megu down`) and purge again") from None


def _columns(opened: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    """Return tables with their columns, without generated columns and tables that have no row ids."""
    found = []
    for (table,) in opened.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%'"
    ).fetchall():
        described = opened.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
        found.append((table, [name for _, name, _, _, _, _, hidden in described if not hidden]))
    return found


def _clean_column(opened: sqlite3.Connection, table: str, column: str, scanners: Sequence[Scanner], key: bytes) -> None:
    query = (
        f'SELECT rowid, "{column}" FROM "{table}" WHERE length("{column}") >= 32 AND typeof("{column}") IN (\'text\', \'blob\')'
    )
    for row, value in opened.execute(query).fetchall():
        content = value.encode() if isinstance(value, str) else value
        for scanner in scanners:
            found = scanner.content(content)
            if found.images:
                content = b"erased"
            for number in found.ids:
                identifier = bytes(scanner.patterns.ids[number])
                content = content.replace(identifier, commit(key, identifier).hex()[: len(identifier)].encode())
        if content != (value.encode() if isinstance(value, str) else value):
            new = content.decode() if isinstance(value, str) else content
            opened.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (new, row))


def vacuum(database: Path) -> None:
    """Rewrite a database without what was deleted from it."""
    if not database.is_file():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        opened.execute("VACUUM")
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")


__all__ = ["Action", "carry_out", "clean", "prepare_data", "remove", "swap"]
