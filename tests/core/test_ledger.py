"""The ledger: a real file, real processes, and changes made behind its back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.core.files.ledger import GENESIS, Event, Ledger, Refused


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home" / "ledger.db")


def taken(events: list[Event]) -> str | None:
    return "it was taken before" if events else None


def test_events_come_back_in_order_with_their_facts(ledger: Ledger) -> None:
    first = ledger.append("request.received", "r1", {"due": "2026-12-01", "samples": 3})
    second = ledger.append("request.accepted", "r1", {})
    third = ledger.append("promotion.champion", "megu/1", {"ü": [1, 2.5, None]})
    assert ledger.events() == [first, second, third]
    assert [event.number for event in ledger.events("r1")] == [1, 2]
    assert ledger.events(kind="request.") == [first, second]
    assert ledger.events("r1", "request.accepted") == [second]
    assert (first.previous, second.previous, ledger.head) == (GENESIS, first.digest, third.digest)
    assert first.time.endswith("+00:00")
    assert ledger.check() == []


def test_reading_makes_no_file(ledger: Ledger) -> None:
    assert (ledger.events(), ledger.head, ledger.check()) == ([], GENESIS, [])
    assert not ledger.path.exists()


def test_a_condition_refuses_with_its_reason_and_appends_nothing(ledger: Ledger) -> None:
    ledger.append("request.received", "r1", {}, unless=taken)
    with pytest.raises(Refused, match="it was taken before"):
        ledger.append("request.received", "r1", {}, unless=taken)
    ledger.append("request.received", "r2", {}, unless=taken)
    assert [event.subject for event in ledger.events()] == ["r1", "r2"]


def test_a_transaction_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    def interrupted() -> None:
        with ledger.transaction() as writer:
            writer.append("request.received", "r1", {})
            assert len(writer.events("r1")) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert ledger.events() == []
    with ledger.transaction() as writer:
        for name in "abc":
            writer.append("request.received", name, {})
    assert len(ledger.events()) == 3
    assert ledger.check() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET facts = '{}' WHERE number = 1",
        "DELETE FROM events WHERE number = 2",
        "INSERT OR REPLACE INTO events SELECT 1, time, kind, subject, facts, previous, digest FROM events WHERE number = 2",
        "INSERT INTO events SELECT 9, time, kind, subject, facts, previous, digest FROM events WHERE number = 2",
    ],
)
def test_an_event_cannot_be_changed_removed_or_put_elsewhere(ledger: Ledger, statement: str) -> None:
    before = [ledger.append("request.received", "r1", {"a": 1}), ledger.append("request.accepted", "r1", {})]
    with sqlite3.connect(ledger.path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert ledger.events() == before


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE events SET facts = '{}' WHERE number = 1", "event 1 is not as it was written"),
        ("UPDATE events SET time = 'x' WHERE number = 2", "event 2 is not as it was written"),
        ("UPDATE events SET subject = 'r9' WHERE number = 3", "event 3 is not as it was written"),
        ("UPDATE events SET digest = previous WHERE number = 3", "event 3 is not as it was written"),
        ("DELETE FROM events WHERE number = 2", "event 2 is missing"),
    ],
)
def test_a_change_behind_the_triggers_shows(ledger: Ledger, statement: str, said: str) -> None:
    for number in range(3):
        ledger.append("request.received", f"r{number}", {"n": number})
    with sqlite3.connect(ledger.path) as connection:
        for name in ("no_change", "no_removal"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
    gone, also, wrong = ledger.check()
    assert "no_change" in gone
    assert "no_removal" in also
    assert said in wrong


def test_a_shortened_ledger_shows_to_whoever_kept_its_head(ledger: Ledger) -> None:
    ledger.append("request.received", "r1", {})
    kept = ledger.append("request.received", "r2", {}).digest
    assert ledger.check(kept, GENESIS) == []
    ledger.path.unlink()
    ledger.append("request.received", "r1", {})
    assert "cut off" in ledger.check(kept)[0]
    ledger.path.unlink()
    assert "no ledger" in ledger.check(kept)[0]


def test_damage_and_a_newer_format_are_said_in_one_line(ledger: Ledger) -> None:
    ledger.append("request.received", "r1", {})
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(MeguError, match="format 2"):
        ledger.append("request.received", "r2", {})
    ledger.path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(MeguError, match="damaged"):
        ledger.events()
    assert "damaged" in ledger.check()[0]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.dictionaries(st.text(), st.integers() | st.text() | st.none())), max_size=6
    )
)
def test_the_chain_of_what_was_appended_always_holds(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, dict]]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    written = [ledger.append("a.b", subject, facts) for subject, facts in entries]
    assert ledger.events() == written
    assert ledger.check(*(event.digest for event in written)) == []


ADD = """
import sys
from pathlib import Path
from megu.core.files.ledger import Ledger, Refused
ledger, won = Ledger(Path(sys.argv[1])), 0
for number in range(int(sys.argv[2])):
    try:
        ledger.append("request.received", f"r{number}", {"by": sys.argv[3]}, unless=lambda events: "taken" if events else None)
        won += 1
    except Refused:
        pass
print(won)
"""


def test_processes_that_want_the_same_thing_get_it_once(ledger: Ledger) -> None:
    arguments = [sys.executable, "-c", ADD, str(ledger.path), "25"]
    processes = [subprocess.Popen([*arguments, str(name)], stdout=subprocess.PIPE, text=True) for name in range(4)]
    won = [int(process.communicate()[0]) for process in processes]
    assert sum(won) == 25
    assert sorted(event.subject for event in ledger.events()) == sorted(f"r{number}" for number in range(25))
    assert ledger.check() == []


def test_a_process_killed_in_a_transaction_leaves_nothing_of_it(ledger: Ledger) -> None:
    ledger.append("request.received", "r1", {})
    program = (
        "import os, signal, sys; from pathlib import Path; from megu.core.files.ledger import Ledger\n"
        "with Ledger(Path(sys.argv[1])).transaction() as writer:\n"
        "    for n in range(2000): writer.append('request.received', f's{n}', {'x': 'y' * 500})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(ledger.path)], check=False).returncode == -signal.SIGKILL
    assert [event.subject for event in ledger.events()] == ["r1"]
    ledger.append("request.received", "r2", {})
    assert ledger.check() == []
    assert os.listdir(ledger.path.parent) == ["ledger.db"]
