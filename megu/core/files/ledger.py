"""The ledger: what happened to requests, models and promotions, one event after the other, never rewritten.

It is one SQLite file, ``.megu/ledger.db``. Triggers refuse to change or remove an event. Each event contains the hash of the previous
one, so a change that bypasses the triggers is detected (`Ledger.check`). One write is one transaction, which is on disk when it
returns. A condition is checked inside that transaction: of two processes that want to change the same thing, only one succeeds.

The chain cannot show that its newest events were cut off: store `Ledger.head` elsewhere for that (a dossier has it).
The ledger outlives the data it describes, so it contains no sample id and no text written by a person: callers see to that.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError, Outage
from megu.core.files.store import canonical_json

#: Increased when the content of the file changes.
FORMAT = 1
#: The "previous" digest of the first event.
GENESIS = "0" * 64
#: Seconds to wait for another process's transaction, which takes milliseconds.
PATIENCE = 60.0

_KIND = re.compile(r"[a-z]+(\.[a-z][a-z-]*)+")
_SCHEMA = """
CREATE TABLE events (
  number INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
  facts TEXT NOT NULL, previous TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE INDEX events_of_subject ON events (subject, number);
CREATE TRIGGER no_change BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER no_removal BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER in_order BEFORE INSERT ON events
  WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number), 0) + 1 FROM events)
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
_TRIGGERS = {"no_change", "no_removal", "in_order"}
_COLUMNS = "number, time, kind, subject, facts, previous, digest"


@dataclass(frozen=True)
class Event:
    """number: from 1, without gaps. time: UTC, ISO 8601. kind: "request.received". subject: the id of what it happened to.

    facts: a JSON object. previous, digest: SHA-256 of the previous event and of this one, in hex.
    """

    number: int
    time: str
    kind: str
    subject: str
    facts: Mapping[str, Any]
    previous: str
    digest: str

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "facts": dict(self.facts)}


#: Given the events of one subject so far, returns why another may not be appended; None when it may.
Unless = Callable[[list[Event]], str | None]


class Refused(MeguError):
    """The condition of an append did not hold: another process was first, or the current state does not allow the step."""


class Writer:
    """A transaction: it sees its own appends, nobody else writes meanwhile, and either all of it is stored or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def events(self, subject: str | None = None, kind: str | None = None) -> list[Event]:
        """As `Ledger.events`."""
        return _events(self._connection, subject, kind)

    def append(self, kind: str, subject: str, facts: Mapping[str, Any], *, unless: Unless | None = None) -> Event:
        """As `Ledger.append`."""
        if not _KIND.fullmatch(kind) or not subject:
            raise ValueError(f"an event needs a kind like request.received and a subject, not {kind!r} and {subject!r}")
        reason = unless(self.events(subject)) if unless else None
        if reason:
            raise Refused(reason)
        last = self._connection.execute("SELECT number, digest FROM events ORDER BY number DESC LIMIT 1").fetchone()
        number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
        time, text = datetime.now(UTC).isoformat(timespec="microseconds"), canonical_json(facts).decode()
        row = (number, time, kind, subject, text, previous, _digest(number, time, kind, subject, text, previous))
        self._connection.execute(f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return _event(row)


@dataclass(frozen=True)
class Ledger:
    """The ledger in a file. Creating the object touches nothing on disk; the first append creates the file."""

    path: Path

    def append(self, kind: str, subject: str, facts: Mapping[str, Any], *, unless: Unless | None = None) -> Event:
        """Append one event, which is on disk when this returns.

        Raises `Refused` with the reason that ``unless`` gives for the events of ``subject``, called inside the transaction: a state
        can be compared and changed in one step. Raises `MeguError` when the file is damaged, or locked for longer than `PATIENCE`.
        """
        with self.transaction() as writer:
            return writer.append(kind, subject, facts, unless=unless)

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """Write several events at once, all or none; an error inside undoes them. Keep it short: nobody else can append meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _open(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                _prepare(connection, self.path)
                yield Writer(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def events(self, subject: str | None = None, kind: str | None = None) -> list[Event]:
        """Return the events in order, of one subject and one kind if specified; kind "request." means every kind with that prefix."""
        if not self.path.exists():
            return []
        with _open(self.path) as connection:
            return _events(connection, subject, kind) if _known(connection, self.path) else []

    @property
    def head(self) -> str:
        """Return the digest of the newest event: it distinguishes an older copy of the ledger from a shortened one."""
        if not self.path.exists():
            return GENESIS
        with _open(self.path) as connection:
            if not _known(connection, self.path):
                return GENESIS
            last = connection.execute("SELECT digest FROM events ORDER BY number DESC LIMIT 1").fetchone()
        return str(last[0]) if last else GENESIS

    def check(self, *heads: str) -> list[str]:
        """Return what is wrong with the ledger, one line each; empty when it is intact. heads: digests that it must have (`head`,
        stored elsewhere)."""
        if not self.path.exists():
            return [f"there is no ledger {self.path}"] if set(heads) - {GENESIS} else []
        try:
            with _open(self.path) as connection:
                if not _known(connection, self.path):
                    return [f"{self.path} holds no events"] if set(heads) - {GENESIS} else []
                rows = connection.execute(f"SELECT {_COLUMNS} FROM events ORDER BY number").fetchall()
                found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'")
                missing = _TRIGGERS - {name for (name,) in found}
        except MeguError as error:
            return [str(error)]
        wrong = [f"the trigger {name} that keeps events from being changed is gone" for name in sorted(missing)]
        previous = GENESIS
        for expected, row in enumerate(rows, start=1):
            if row[0] != expected:
                return [*wrong, f"event {expected} is missing"]
            if row[5] != previous or row[6] != _digest(*row[:6]):
                return [*wrong, f"event {expected} is not as it was written, or one before it was changed"]
            previous = row[6]
        known = {GENESIS, *(row[6] for row in rows)}
        return wrong + [
            f"the event {head[:16]}… is known but missing: events were cut off" for head in heads if head not in known
        ]


def _digest(number: int, time: str, kind: str, subject: str, facts: str, previous: str) -> str:
    return hashlib.sha256(canonical_json([FORMAT, number, time, kind, subject, facts, previous])).hexdigest()


def _event(row: tuple[Any, ...]) -> Event:
    number, time, kind, subject, facts, previous, digest = row
    return Event(number, time, kind, subject, json.loads(facts), previous, digest)


def _events(connection: sqlite3.Connection, subject: str | None, kind: str | None) -> list[Event]:
    wanted: list[str] = ["1"]
    values: list[str | int] = []
    if subject is not None:
        wanted.append("subject = ?")
        values.append(subject)
    if kind is not None:
        wanted.append("substr(kind, 1, ?) = ?" if kind.endswith(".") else "kind = ?")
        values.extend([len(kind), kind] if kind.endswith(".") else [kind])
    query = f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(wanted)} ORDER BY number"
    return [_event(row) for row in connection.execute(query, values)]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection that starts transactions only on request, and whose errors are reported in one line."""
    try:
        # The rollback journal, not the write-ahead log: one file to back up, and switching to the log while others open the
        # file fails at once instead of waiting.
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise Outage(f"the ledger {path} cannot be used ({error})", "see that the folder can be written to") from None
        raise Outage(f"another process has held the ledger for {PATIENCE:.0f} s", "try again") from None
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise MeguError(f"the ledger {path} is damaged ({error})", "restore it from a backup") from None


def _known(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file already contains a ledger. Raises `MeguError` when a newer megu made it."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > FORMAT:
        raise MeguError(f"the ledger {path} has format {found}, and this megu knows up to {FORMAT}", "use the newer megu")
    return bool(found)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _known(connection, path):
        for statement in re.split(r";\n(?=CREATE|$)", _SCHEMA.strip() + "\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
