"""Which model saw a sample: an index of all recorded runs that answers at once.

A run refers to two sets of commitments: the training images of its data set, and its forget set. Each distinct set is one sorted
file, written once under its own hash, however many runs refer to it; the runs are rows of a small database. It holds no ids.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from megu.core.errors import MeguError
from megu.core.files.store import writing
from megu.lineage.commitments import SIZE, commit, holds
from megu.lineage.dossier import sha256

History = Literal["trained", "forgot", "never saw", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recorded run. model: the registered version (``models:/name/3``), empty without one. trained, forgotten: the sets, by the
    SHA-256 of their files. given: the original came from outside. key: fingerprint of the commitment key. seal: the dossier's."""

    run_id: str
    seal: str
    created: str
    model: str
    request: str
    method: str
    data: str
    trained: str
    forgotten: str
    original: str
    unlearned: str
    given: int
    key: str

    @property
    def inherits(self) -> bool:
        """Whether the unlearned model is derived from the original; a retrain starts from scratch."""
        return self.method != "retrain"


@dataclass(frozen=True)
class Answer:
    """What a run's two models have to do with a sample. For a given original that an earlier run made, that run's answer counts. For any
    other, only its supplier knows, and "unknown" passes on to what was made from it, unless the run itself trained on the sample or
    forgot it."""

    row: Row
    unlearned: History
    original: History


_COLUMNS = [entry.name for entry in fields(Row)]


@dataclass(frozen=True)
class Index:
    """The index under ``root``. Creating the object touches nothing on disk."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / "sets" / name[:2] / f"{name}.hmac"

    def put(self, commitments: bytes) -> str:
        """Store a set of commitments (`megu.lineage.commitments.commit_all`) and return its name."""
        name = sha256(commitments)
        if not self.path(name).is_file() or sha256(self.path(name).read_bytes()) != name:
            with writing(self.path(name)) as temporary:
                temporary.write_bytes(commitments)
        return name

    def trained(self, data: str, key: str, make: Callable[[], bytes]) -> str:
        """Return the set of all training images of a version of a data set, made on first use. data: its DVC hash, and the limit where a
        run saw only part of it."""
        with self._open() as opened:
            known = opened.execute("SELECT name FROM data WHERE data = ? AND key = ?", (data, key)).fetchone()
            if known and self.path(known[0]).is_file():
                return str(known[0])
            name = self.put(make())
            opened.execute("REPLACE INTO data VALUES (?, ?, ?)", (data, key, name))
            return name

    def add(self, rows: Iterable[Row]) -> None:
        """Store rows; the row of a run that is already indexed is replaced."""
        with self._open() as opened:
            marks = ", ".join("?" for _ in _COLUMNS)
            opened.executemany(f"REPLACE INTO runs VALUES ({marks})", [astuple(row) for row in rows])

    def row(self, run_id: str) -> Row | None:
        return next(iter(self._rows("WHERE run_id = ?", run_id)), None)

    def rows(self) -> list[Row]:
        """Return every recorded run, oldest first."""
        return self._rows("ORDER BY created, run_id")

    def which(self, key: bytes, sample: bytes) -> list[Answer]:
        """Return, for every recorded run, what its models have to do with a sample (its id). Each distinct set is searched once.

        Raises `MeguError` when a set that a run refers to is gone.
        """
        commitment = commit(key, sample)
        rows = self.rows()
        inside = {name: self._holds(name, commitment) for name in {n for row in rows for n in (row.trained, row.forgotten)}}
        answers, made = list[Answer](), dict[str, History]()
        for row in rows:
            answers.append(_answer(row, inside[row.trained], inside[row.forgotten], made))
            made[row.unlearned] = answers[-1].unlearned
        return answers

    def entries(self, name: str) -> frozenset[bytes]:
        """Return the commitments of a set. Raises `MeguError` when its file is gone or truncated."""
        try:
            content = self.path(name).read_bytes()
        except OSError:
            raise _lacks(name) from None
        if len(content) % SIZE:
            raise _lacks(name)
        return frozenset(content[at : at + SIZE] for at in range(0, len(content), SIZE))

    def _holds(self, name: str, commitment: bytes) -> bool:
        try:
            return holds(self.path(name), commitment)
        except OSError:
            raise _lacks(name) from None

    def _rows(self, rest: str, *values: str) -> list[Row]:
        if not (self.root / "index.db").is_file():
            return []
        with self._open() as opened:
            return [
                Row(**dict(zip(_COLUMNS, row, strict=True))) for row in opened.execute(f"SELECT * FROM runs {rest}", values)
            ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.root / "index.db", timeout=30)) as opened, opened:
                columns = ", ".join(f"{entry.name} {'INTEGER' if entry.name == 'given' else 'TEXT'}" for entry in fields(Row))
                opened.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns}, PRIMARY KEY (run_id))")
                opened.execute("CREATE TABLE IF NOT EXISTS data (data TEXT, key TEXT, name TEXT, PRIMARY KEY (data, key))")
                yield opened
        except sqlite3.Error as error:
            raise MeguError(
                f"the lineage index {self.root} cannot be used ({error})", "delete it and run `megu lineage index`"
            ) from None


def _lacks(name: str) -> MeguError:
    return MeguError(
        f"the lineage index lacks the set {name[:16]}…", "run `megu lineage index`, which rebuilds it from the dossiers"
    )


def _answer(row: Row, trained: bool, forgotten: bool, made: Mapping[str, History]) -> Answer:
    """made: weights -> the answer of the earlier run that made them."""
    seen: History = "trained" if trained else "never saw"
    original = made.get(row.original, "unknown") if row.given else seen
    rest = original if row.inherits else "never saw"
    return Answer(row, "forgot" if forgotten else "trained" if trained else rest, original)
