"""Changes to a finished run, one at a time: every file that its dossier covers, every field, and every cell MLflow keeps of it.

A `Change` is made, verified and taken back. `surfaces` lists them all; what verify says must contain one of its ``named`` words in
a line that does not hold.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megu.core.files.store import canonical_json
from megu.core.project import Project
from megu.lineage.dossier import MAIN, SEAL, sha256
from megu.lineage.verify import run as lineage


@dataclass(frozen=True)
class Change:
    """surface: what kind of place. what: which one. made: makes it, and takes it back when the block ends. named: words one of which
    verify must say."""

    surface: str
    what: str
    made: Callable[[], contextlib.AbstractContextManager[None]]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.surface}: {self.what}"


def missed(change: Change, project: Project, run_id: str) -> str | None:
    """What verify said, when it does not name the change; None when it does."""
    with change.made():
        report = lineage.verify(run_id, project)
    failing = [f"{check.name}: {check.says}" for check in report.checks if check.holds is not True]
    if report.exit_code and any(word in line for line in failing for word in change.named):
        return None
    return f"exit {report.exit_code}, {failing}"


def flips(surface: str, path: Path, named: tuple[str, ...], rng: random.Random, count: int = 2) -> Iterator[Change]:
    """One bit of the file: in its first byte, its last, and others by chance; then the file cut by a byte, and gone."""
    size = path.stat().st_size
    places = [0, size - 1, *(rng.randrange(size) for _ in range(count))][: max(count, 1)] if size else []
    for place in dict.fromkeys(places):
        bit = 1 << rng.randrange(8)
        yield Change(surface, f"{path.name} byte {place}", lambda p=place, b=bit: _written(path, _flipped(path, p, b)), named)
    if size:
        yield Change(surface, f"{path.name} cut", lambda: _written(path, path.read_bytes()[:-1]), named)
    yield Change(surface, f"{path.name} gone", lambda: _written(path, None), named)


def _flipped(path: Path, place: int, bit: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    return bytes(content)


@contextmanager
def _written(path: Path, content: bytes | None) -> Iterator[None]:
    """Another content for a while; None: no file."""
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def _added(path: Path) -> Iterator[None]:
    path.write_bytes(b"new")
    try:
        yield
    finally:
        path.unlink()


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every plain value in a JSON value, with the way to it."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from leaves(entry, (*place, key))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from leaves(entry, (*place, number))
    else:
        yield place, value


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return ["x"] if isinstance(value, list) else {"x": 1} if isinstance(value, dict) else "x"


def changed(value: Any, place: tuple[Any, ...]) -> Any:
    """A copy of a JSON value with another value at one place."""
    copy = json.loads(json.dumps(value))
    inside = copy
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = other(inside[place[-1]])
    return copy


def fields(surface: str, path: Path, named: tuple[str, ...]) -> Iterator[Change]:
    """Every field of a JSON file, changed and written as canonically as before; and one more field."""
    value = json.loads(path.read_bytes())
    for place, _ in leaves(value):
        what = f"{path.name} {'.'.join(map(str, place))}"
        yield Change(surface, what, lambda p=place: _written(path, canonical_json(changed(value, p))), named)
    yield Change(surface, f"{path.name} one more field", lambda: _written(path, canonical_json({**value, "more": 1})), named)


def lines(surface: str, path: Path, named: tuple[str, ...], rng: random.Random, count: int = 4) -> Iterator[Change]:
    """Some fields of each line of JSON; lines gone and swapped."""
    rows = path.read_bytes().splitlines()

    def written(new: list[bytes]) -> contextlib.AbstractContextManager[None]:
        return _written(path, b"".join(row + b"\n" for row in new))

    for number, row in enumerate(rows):
        value = json.loads(row)
        for place, _ in rng.sample(list(leaves(value)), count):
            new = [*rows[:number], canonical_json(changed(value, place)), *rows[number + 1 :]]
            yield Change(surface, f"line {number} {'.'.join(map(str, place))}", lambda n=new: written(n), named)
        yield Change(surface, f"line {number} gone", lambda n=[*rows[:number], *rows[number + 1 :]]: written(n), named)
    yield Change(surface, "two lines swapped", lambda: written([rows[1], rows[0], *rows[2:]]), named)


def resealed(folder: Path, twin: Path, database: Path, run_id: str) -> Iterator[Change]:
    """Every field of the dossier changed by someone who has everything but the key: sealed anew in both copies and in MLflow's tag."""
    value, seal = json.loads((folder / MAIN).read_bytes()), json.loads((folder / SEAL).read_bytes())

    @contextmanager
    def made(place: tuple[Any, ...], unsigned: bool) -> Iterator[None]:
        content = canonical_json(changed(value, place))
        new = {**seal, "seal": sha256(content)} | ({"signed": False, "public": None, "signature": None} if unsigned else {})
        with contextlib.ExitStack() as stack:
            for copy in (folder, twin):
                stack.enter_context(_written(copy / MAIN, content))
                stack.enter_context(_written(copy / SEAL, canonical_json(new)))
            where = ("run_uuid = ? AND key = 'lineage.seal'", (run_id,))
            stack.enter_context(_cell(database, "tags", *where, "value", sha256(content)))
            yield

    for number, (place, _) in enumerate(leaves(value)):
        what, unsigned = f"{'.'.join(map(str, place))}", bool(number % 2)
        named = ("signature", "dossier: ", "dossier in MLflow: ")
        yield Change("dossier sealed anew", what, lambda p=place, u=unsigned: made(p, u), named)


@contextmanager
def _cell(database: Path, table: str, where: str, values: tuple[Any, ...], column: str, new: Any) -> Iterator[None]:
    def put(value: Any) -> Any:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened, opened:
            before = opened.execute(f"SELECT {column} FROM {table} WHERE {where}", values).fetchone()[0]
            opened.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *values))
            return before

    before = put(new)
    try:
        yield
    finally:
        put(before)


@contextmanager
def _row_gone(database: Path, table: str, where: str, values: tuple[Any, ...]) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened, opened:
        before = opened.execute(f"SELECT * FROM {table} WHERE {where}", values).fetchone()
        opened.execute(f"DELETE FROM {table} WHERE {where}", values)
    try:
        yield
    finally:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened, opened:
            opened.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(before))})", before)


def cells(
    surface: str,
    database: Path,
    table: str,
    where: str,
    values: tuple[Any, ...],
    name: str,
    columns: tuple[str, ...],
    says: str,
) -> Iterator[Change]:
    """The columns of every row of a table that ``where`` finds, changed; and the row gone. name: the column that names a row."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
        rows = opened.execute(f"SELECT rowid, {name}, {', '.join(columns)} FROM {table} WHERE {where}", values).fetchall()
    for rowid, label, *now in rows:
        named = (f"{says} {label}" if says else str(label),)
        for column, value in zip(columns, now, strict=True):
            at = (database, table, "rowid = ?", (rowid,), column, other(value))
            yield Change(surface, f"{table} {label} {column}", lambda a=at: _cell(*a), named)
        if says:
            gone = (database, table, "rowid = ?", (rowid,))
            yield Change(surface, f"{table} {label} gone", lambda g=gone: _row_gone(*g), named)


def surfaces(project: Project, run_id: str, seed: int = 0) -> list[Change]:
    """Every change, in an order that does not depend on the machine."""
    rng = random.Random(seed)
    found: list[Change] = []
    facts = json.loads((project.dossiers / run_id / MAIN).read_bytes())
    folder, database = project.dossiers / run_id, project.home / "mlflow.db"
    artifacts = _artifacts(database, run_id)
    twin, model = artifacts / "dossier", _model(database, facts["tracked"]["version"])

    for place, where in (("dossier", folder), ("dossier in MLflow", twin)):
        for path in sorted(where.iterdir()):
            found += flips(place, path, (f"{place}: ", f"{path.name} is not as in the"), rng, 6)
        found += [Change(place, "one more file", lambda w=where: _added(w / "more.txt"), (f"{place}: more.txt",))]
        found += fields(f"{place} fields", where / MAIN, (f"{place}: ",))
        found += fields(f"{place} fields", where / SEAL, (f"{place}: ", "signature"))
        found += lines(f"{place} records", where / "records.jsonl", (f"{place}: ",), rng)
    found += resealed(folder, twin, database, run_id)

    for path in sorted(p for p in artifacts.rglob("*") if p.is_file() and twin not in p.parents):
        found += flips(
            "artifacts",
            path,
            (f"{path.relative_to(artifacts).as_posix()} has", f"{path.relative_to(artifacts).as_posix()} is gone"),
            rng,
        )
    found += [Change("artifacts", "one more file", lambda: _added(artifacts / "more.txt"), ("more.txt was added",))]
    for path in sorted(p for p in model.rglob("*") if p.is_file()):
        found += flips(
            "model version files",
            path,
            (f"{path.relative_to(model).as_posix()} has", f"{path.relative_to(model).as_posix()} is gone"),
            rng,
            1,
        )
    found += [Change("model version files", "one more file", lambda: _added(model / "more.py"), ("more.py was added",))]

    records = [json.loads(line)["identity"] for line in (folder / "records.jsonl").read_bytes().splitlines()]
    for record in records:
        for name, ref in record["files"].items():
            path = project.home / "store" / ref["sha256"][:2] / f"{ref['sha256']}.{ref['kind']}"
            found += flips("store", path, (f"{record['label']}/{name}",), rng, 1)
        found += flips("cached results", project.results / record["key"], (f"cached result of {record['label']}",), rng, 4)
    for path in sorted(project.data(facts["data"]["name"]).iterdir()):
        found += flips("data", path, ("data: ",), rng, 4)
    found += flips("pins", project.root / "data.dvc", ("data.dvc",), rng, 30)
    found += flips("pins", project.root / "dvc.lock", ("dvc.lock",), rng, 60)
    for path in sorted((project.root / "splits").iterdir()):
        found += flips("splits", path, ("splits/",), rng, 3)

    found += _in_database(database, run_id, facts["tracked"]["version"])
    index, named = project.index / "index.db", "index: "
    columns = tuple(name for name in _columns(index, "runs") if name != "run_id")
    found += [
        Change("index", f"{change.what}", change.made, (named,))
        for change in cells("index", index, "runs", "run_id = ?", (run_id,), "run_id", columns, "run")
    ]
    row = _row(index, "runs", run_id)
    for which in ("trained", "forgotten"):
        path = project.index / "sets" / row[which][:2] / f"{row[which]}.hmac"
        found += flips("index", path, (named,), rng, 3)
    found += flips("keys", project.keys / "commitments.key", ("commitments: ", "commitments.key"), rng, 3)
    if before := facts["previous"]:
        earlier = before["mlflow_run_id"]
        for path in (project.dossiers / earlier / MAIN, _artifacts(database, earlier) / "dossier" / MAIN):
            found += flips("previous dossier", path, (earlier,), rng, 4)
    return found


def _in_database(database: Path, run_id: str, version: dict[str, Any]) -> Iterator[Change]:
    run, own = "run_uuid = ?", (run_id,)
    tags = "run_uuid = ? AND key NOT LIKE 'lineage.%'"
    yield from cells("MLflow metrics", database, "latest_metrics", run, own, "key", ("value",), "metric")
    yield from cells("MLflow params", database, "params", run, own, "key", ("value",), "param")
    yield from cells("MLflow tags", database, "tags", tags, own, "key", ("value",), "tag")
    yield from cells(
        "MLflow seal", database, "tags", "run_uuid = ? AND key LIKE 'lineage.%'", own, "key", ("value",), "seal in MLflow:"
    )
    for column, named in (("name", "name was"), ("start_time", "started was"), ("status", "status is")):
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
            now = opened.execute(f"SELECT {column} FROM runs WHERE {run}", own).fetchone()[0]
        new = "FAILED" if column == "status" else other(now)
        yield Change("MLflow run", column, lambda c=column, n=new: _cell(database, "runs", run, own, c, n), (named,))
    deleted = ("runs", run, own, "lifecycle_stage", "deleted")
    yield Change("MLflow run", "deleted", lambda: _cell(database, *deleted), (f"no run {run_id}",))
    name, number = version["name"], int(version["version"])
    inputs = "dataset_uuid IN (SELECT source_id FROM inputs WHERE destination_id = ?)"
    for column in ("name", "digest", "dataset_source"):
        at = (database, "datasets", inputs, own, column, "other")
        yield Change("MLflow inputs", column, lambda a=at: _cell(*a), ("inputs was",))
    where, these = "name = ? AND version = ?", (name, number)
    for column in ("source", "run_id", "description", "creation_time"):
        new = 1 if column == "creation_time" else "other"
        at = (database, "model_versions", where, these, column, new)
        yield Change("registry", f"version {column}", lambda a=at: _cell(*a), ("model version: ",))
    yield from cells("registry", database, "model_version_tags", where, these, "key", ("value",), "tag")
    alias = ("registered_model_aliases", "name = ?", (name,))
    yield Change("registry", "alias moved", lambda: _cell(database, *alias, "version", number - 1), ("alias: challenger",))
    yield Change("registry", "alias renamed", lambda: _cell(database, *alias, "alias", "other"), ("alias: challenger",))
    yield Change("registry", "alias gone", lambda: _row_gone(database, *alias), ("alias: challenger",))
    head = ("registered_model_tags", "name = ? AND key = 'lineage.head'", (name,))
    yield Change("registry", "head of the chain gone", lambda: _row_gone(database, *head), ("chain of dossiers: ",))
    yield Change(
        "registry",
        "head of the chain",
        lambda: _cell(database, *head, "value", f"{run_id} {'0' * 64}"),
        ("chain of dossiers: ",),
    )


def _artifacts(database: Path, run_id: str) -> Path:
    return _place(database, "SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)


def _model(database: Path, version: dict[str, Any]) -> Path:
    model = version["source"].removeprefix("models:/")
    return _place(database, "SELECT artifact_location FROM logged_models WHERE model_id = ?", model)


def _place(database: Path, query: str, value: str) -> Path:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as opened:
        return Path(opened.execute(query, (value,)).fetchone()[0].removeprefix("file://"))


def _columns(database: Path, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return [row[1] for row in opened.execute(f"PRAGMA table_info({table})")]


def _row(database: Path, table: str, run_id: str) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        found = opened.execute(f"SELECT * FROM {table} WHERE run_id = ?", (run_id,)).fetchone()
    return dict(zip(_columns(database, table), found, strict=True))


def copied(folder: Path, to: Path) -> Path:
    """A dossier as it is handed to someone."""
    return Path(shutil.copytree(folder, to))
