"""Requests: what one may say, where it may go, and the inbox over a real ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.requests.batches import Away, Batch, Pending, batches, work_through
from megu.requests.inbox import Inbox
from megu.requests.intake import files
from megu.requests.overview import overview
from megu.requests.request import Request, RequestParams, identity, scrubbed
from megu.requests.states import FORGOTTEN, STATES, TRANSITIONS, failures, refusal, state_of

TODAY = date(2026, 11, 24)
ID = "0123456789abcdef0123456789abcdef"


def request(**values: Any) -> Request:
    return Request(**{"classes": ("Bag",), "basis": "gdpr-17-1-a", "requester": "data-subject", "due": "2026-12-24", **values})


@pytest.fixture
def inbox(project: Project) -> Inbox:
    return Inbox(project)


def event(kind: str, **facts: Any) -> Event:
    return Event(1, "", kind, "r", facts, "", "")


# --- what one may say --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ()}, "one kind per request"),
        ({"ids": (ID,)}, "one kind per request"),
        ({"reason": "Anna asked me to"}, "one of erasure-request"),
        ({"basis": "because"}, "one of gdpr-17-1-a"),
        ({"requester": "Anna Smith"}, "one of data-subject"),
        ({"due": "soon"}, "a date such as"),
        ({"due": "20261224"}, "a date such as"),
        ({"reference": "Anna Smith"}, "ticket"),
        ({"reference": "anna@example.org"}, "ticket"),
        ({"reference": "+49 170 1234567"}, "ticket"),
        ({"classes": (), "ids": ("anna",)}, "32 hex"),
        ({"classes": ("a\nb",)}, "names of at most"),
    ],
)
def test_what_is_not_on_a_list_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(**values)


def test_the_refusal_of_a_file_does_not_repeat_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{classes: [Bag], basis: contract, requester: Anna Smith}")
    with pytest.raises(MeguError, match=r"requester must be one of data-subject") as caught:
        files.read(path, RequestParams(), TODAY)
    assert "Anna" not in str(caught.value)
    path.write_text("{classes: [Bag], basis: contract, requester: court, note: Anna Smith wants it}")
    with pytest.raises(MeguError, match="no free text") as caught:
        files.read(path, RequestParams(), TODAY)
    assert "Anna" not in str(caught.value)


def test_the_id_is_of_target_and_reference_under_the_key() -> None:
    one = request(classes=("Bag", "Coat", "Bag"))
    assert identity(b"k" * 32, one) == identity(
        b"k" * 32, request(classes=("Coat", "Bag"), due="2027-01-01", reason="objection")
    )
    assert identity(b"k" * 32, one) != identity(b"k" * 32, request(classes=("Bag", "Coat"), reference="DSR-1"))
    assert identity(b"k" * 32, one) != identity(b"j" * 32, one)


def test_a_reason_is_scrubbed_of_names_ids_paths_and_logins() -> None:
    text = f"no class 'Anna' in /srv/anna/data at postgresql://me:secret@db/x, id {ID}, anna_smith/001.png is away"
    said = scrubbed(text, {"classes": ["Anna"], "files": ["anna_smith/001.png"]})
    for word in ("Anna", "anna", "secret", ID):
        assert word not in said
    assert "\n" not in scrubbed("a\nb" * 400)
    assert len(scrubbed("a\nb" * 400)) <= 200


# --- where it may go ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(STATES), max_size=12))
def test_whatever_is_tried_a_request_is_where_the_table_allows(tries: list[Any]) -> None:
    events: list[Event] = []
    for to in tries:
        before = state_of(events)
        if refusal(events, to) is None:
            events.append(event(f"request.{to}"))
            assert to in TRANSITIONS[before]
            assert state_of(events) == to
        else:
            assert to not in TRANSITIONS[before]
        # What a model forgot is only ever forgotten by another model, never dropped.
        assert before not in FORGOTTEN or state_of(events) in FORGOTTEN | {"accepted"}
    assert not events or events[0].kind == "request.received"


def test_every_state_can_be_reached_and_three_are_the_end() -> None:
    reached = {to for targets in TRANSITIONS.values() for to in targets}
    assert reached == set(STATES) == set(TRANSITIONS) - {None}
    assert {state for state, to in TRANSITIONS.items() if not to} == {"closed", "rejected", "withdrawn"}


def test_failures_count_until_a_person_asks_for_another_try() -> None:
    failed, back = event("request.accepted", failed=True), event("request.accepted", why="its batch failed")
    assert failures([event("request.received"), event("request.accepted"), failed, back, failed]) == 2
    assert failures([failed, event("request.accepted", again=True), failed]) == 1


# --- the inbox ---------------------------------------------------------------------------------------------------------------


def test_adding_twice_changes_nothing(inbox: Inbox) -> None:
    first = inbox.add(request())
    again = inbox.add(request(due="2030-01-01"))
    assert (first.new, again.new, again.id, again.state) == (True, False, first.id, "received")
    assert [entry.due for entry in inbox.entries()] == ["2026-12-24"]
    assert inbox.add(request(reference="DSR-2")).new


def test_the_ledger_has_no_name_and_the_private_file_is_private(inbox: Inbox) -> None:
    added = inbox.add(request(classes=(), ids=(ID,), reference="DSR-2026-1"))
    named = inbox.add(request(classes=(), files=("anna/1.png", "anna/2.png")))
    content = inbox.ledger.path.read_bytes()
    assert ID.encode() not in content
    assert b"anna" not in content
    assert b"DSR-2026-1" in content
    assert inbox.entry(named.id).facts["files"] == 2
    assert inbox.target(added.id) == {"classes": [], "subclasses": [], "ids": [ID], "files": []}
    assert inbox.path(added.id).stat().st_mode & 0o077 == 0
    assert inbox.path(added.id).parent.stat().st_mode & 0o077 == 0


def test_judging_rejects_with_a_reason_and_holds_up_no_other(inbox: Inbox) -> None:
    good, bad = inbox.add(request()).id, inbox.add(request(classes=("Car",))).id
    assert inbox.review(lambda target: ("", 30) if "Bag" in target["classes"] else ("1 of 1 classes are not there", 0)) == (
        1,
        1,
    )
    assert (inbox.entry(good).state, inbox.entry(bad).state) == ("accepted", "rejected")
    assert inbox.entry(bad).reason == "1 of 1 classes are not there"
    assert [pending.id for pending in inbox.pending(3)] == [good]


def test_withdrawing_is_possible_until_a_run_has_it(inbox: Inbox) -> None:
    first, second = inbox.add(request()).id, inbox.add(request(classes=("Coat",))).id
    inbox.review(lambda target: ("", 1))
    inbox.withdraw(first)
    inbox.withdraw(first)
    assert inbox.claim(Batch("class", (first, second)), {}).ids == (second,)
    with pytest.raises(MeguError, match="processing cannot become withdrawn"):
        inbox.withdraw(second)
    with pytest.raises(MeguError, match="there is no request r0"):
        inbox.withdraw("r0")


def test_of_two_runs_one_gets_a_request(inbox: Inbox) -> None:
    added = inbox.add(request()).id
    inbox.review(lambda target: ("", 1))
    batch = Batch("class", (added,))
    assert (inbox.claim(batch, {}).ids, inbox.claim(batch, {}).ids) == ((added,), ())


def test_what_failed_too_often_waits_for_a_person(inbox: Inbox) -> None:
    added = inbox.add(request()).id
    inbox.review(lambda target: ("", 1))
    for _ in range(2):
        inbox.move([added], "accepted", {"failed": True, "why": "gate"})
    assert inbox.pending(2) == []
    assert [entry.id for entry in inbox.held(2)] == [added]
    inbox.retry(added)
    assert [pending.id for pending in inbox.pending(2)] == [added]
    with pytest.raises(MeguError, match="is not waiting"):
        inbox.retry(added)


def test_what_the_gate_refuses_is_not_tried_again_until_a_person_asks(inbox: Inbox) -> None:
    added = inbox.add(request()).id
    inbox.review(lambda target: ("", 1))
    inbox.move([added], "accepted", {"failed": True, "refused": True, "why": "the gate turned down even the exact retrain"})
    assert inbox.pending(100) == []
    assert [entry.id for entry in inbox.held(100)] == [added]
    assert inbox.entry(added).to_json()["refused"]
    needed = overview(inbox.project, "megu", RequestParams()).person
    assert f"request {added} was refused: the gate turned down even the exact retrain; look at the thresholds" in needed[0]
    assert len(needed) == 1
    inbox.retry(added)
    assert [pending.id for pending in inbox.pending(1)] == [added]
    assert not inbox.entry(added).refused


ADD = """
import sys
from pathlib import Path
from megu.core.project import Project
from megu.requests.inbox import Inbox
from megu.requests.request import Request
inbox, own, count = Inbox(Project(Path(sys.argv[1]))), int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    # Every second request is one that all clients add.
    reference = f"ALL-{number}" if number % 2 else f"OWN-{own}-{number}"
    inbox.add(Request(classes=("Bag",), basis="contract", requester="internal", due="2026-12-24", reference=reference))
"""


def test_clients_that_add_while_requests_are_processed_lose_and_double_none(inbox: Inbox) -> None:
    """Three clients here; benchmarks/inbox.py has eight and 500 requests."""
    root = str(inbox.project.root)
    clients = [subprocess.Popen([sys.executable, "-c", ADD, root, str(number), "12"]) for number in range(3)]
    while any(client.poll() is None for client in clients):
        inbox.review(lambda target: ("", 1))
        for batch in batches(inbox.pending(3), 5):
            claimed = inbox.claim(batch, {})
            inbox.move(claimed.ids, "unlearned", {})
        time.sleep(0.05)
    assert [client.returncode for client in clients] == [0, 0, 0]
    inbox.review(lambda target: ("", 1))
    found = [entry.facts["reference"] for entry in inbox.entries()]
    assert len(found) == len(set(found)) == 3 * 6 + 6
    assert all(len(entry.events) in (2, 4) for entry in inbox.entries())
    assert inbox.ledger.check() == []


# --- files -------------------------------------------------------------------------------------------------------------------


def put(inbox: Inbox, name: str, text: str) -> Path:
    inbox.project.inbox.mkdir(parents=True, exist_ok=True)
    path = inbox.project.inbox / name
    path.write_text(text)
    return path


def test_a_folder_of_files_is_taken_in_and_a_wrong_file_holds_up_no_other(inbox: Inbox) -> None:
    put(inbox, "a.yaml", "{classes: Bag, basis: contract, requester: data-owner}")
    put(inbox, "b.json", json.dumps([{"ids": [ID], "basis": "contract", "requester": "court", "due": "2026-12-01"}] * 2))
    put(inbox, "c.yaml", "{classes: [Bag], basis: contract}")
    put(
        inbox,
        "d.csv",
        f"reference,basis,requester,id,class\nDSR-1,contract,court,{ID},\nDSR-1,contract,court,{'f' * 32},\nDSR-2,contract,court,,Coat\n",
    )
    put(inbox, ".e.yaml", "still being written")
    taken = {file.file: file for file in files.take(inbox, RequestParams(due_days=10), TODAY)}
    assert [added.new for added in taken["a.yaml"].added] == [True]
    assert [added.new for added in taken["b.json"].added] == [True, False]
    assert len(taken["d.csv"].added) == 2
    assert "lacks requester" in taken["c.yaml"].refused
    assert sorted(path.name for path in inbox.project.inbox.iterdir()) == [".e.yaml"]
    refused = inbox.project.root / "requests" / "refused"
    assert (refused / "c.yaml.why").read_text().strip() == taken["c.yaml"].refused
    assert (refused / "c.yaml").is_file()
    listed = {entry.facts["reference"]: entry for entry in inbox.entries()}
    assert listed["DSR-1"].facts["ids"] == 2
    assert listed["DSR-2"].facts["kind"] == "class"
    assert min(entry.due for entry in inbox.entries()) == "2026-12-01"
    assert inbox.entries()[0].due == "2026-12-04"
    assert files.take(inbox, RequestParams(), TODAY) == []


def test_a_file_with_a_request_that_is_fulfilled_is_set_aside_whole_with_the_reason(inbox: Inbox) -> None:
    done = inbox.add(request(classes=("Bag",), basis="contract", requester="court")).id
    for state in ("accepted", "processing", "unlearned", "verified", "approved", "promoted"):
        inbox.move([done], state, {})  # type: ignore[arg-type]
    text = "[{classes: Coat, basis: contract, requester: court}, {classes: Bag, basis: contract, requester: court}]"
    put(inbox, "a.yaml", text)
    (taken,) = files.take(inbox, RequestParams(), TODAY)
    assert f"a.yaml: request 2 is fulfilled already: {done} is promoted since" in taken.refused
    refused = inbox.project.root / "requests" / "refused"
    assert ((refused / "a.yaml").read_text(), (refused / "a.yaml.why").read_text()) == (text, f"{taken.refused}\n")
    assert [entry.id for entry in inbox.entries()] == [done]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "[1, 2]", "neither a request nor a list"),
        ("a.yaml", "classes: [", "line 1 is not YAML|line 2 is not YAML"),
        ("a.yaml", "", "holds no request"),
        ("a.json", '{"classes": [1.5], "basis": "contract", "requester": "court"}', "not a list of names"),
        ("a.json", '{"classes": ["Bag"], "basis": true, "requester": "court"}', "value is not text"),
        ("a.csv", "reference,basis\nDSR-1\n", "a.csv, line 2 has 1 columns, the first line has 2"),
        ("a.csv", "reference,basis,class\nDSR-1,contract,Bag\nDSR-1,court-order,Bag\n", "differs"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MeguError, match=message):
        files.read(tmp_path / name, RequestParams(), TODAY)


@pytest.mark.parametrize("text", [f"id\n{ID}\n", f"{ID}\n\n", f"name,ID\nx,{ID}\n"])
def test_ids_come_from_a_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids.csv").write_text(text)
    assert files.ids_in(tmp_path / "ids.csv") == [ID]


# --- batches -----------------------------------------------------------------------------------------------------------------


waiting = st.builds(
    Pending,
    st.uuids().map(str),
    st.sampled_from(["class", "ids"]),
    st.dates().map(date.isoformat),
    st.integers(1, 99),
    st.integers(0, 3),
)


@given(st.lists(waiting, unique_by=lambda request: request.id), st.integers(1, 20))
def test_every_request_is_in_one_batch_of_its_kind_what_is_due_first_in_front(pending: list[Pending], size: int) -> None:
    made = batches(pending, size)
    by_id = {request.id: request for request in pending}
    assert sorted(request for batch in made for request in batch.ids) == sorted(by_id)
    for batch in made:
        assert 1 <= len(batch.ids) <= size
        assert {by_id[request].kind for request in batch.ids} == {batch.kind}
        assert len({by_id[request].failures for request in batch.ids}) == 1
        dues = [by_id[request].due for request in batch.ids]
        assert dues == sorted(dues)
    firsts = [by_id[batch.ids[0]].due for batch in made]
    assert firsts == sorted(firsts)


def test_what_failed_before_is_tried_in_smaller_company() -> None:
    pending = [Pending(f"r{n}", "ids", "2026-12-01", n, failures) for failures in (0, 1, 2) for n in range(40)]
    assert [len(batch.ids) for batch in batches([p for p in pending if p.failures == 0], 500)] == [40]
    assert [len(batch.ids) for batch in batches([p for p in pending if p.failures == 1], 500)] == [31, 9]
    assert {len(batch.ids) for batch in batches([p for p in pending if p.failures == 2], 500)} == {1}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 300), st.data())
def test_what_spoils_a_batch_is_found_and_all_others_go_through(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.sampled_from([f"r{n}" for n in range(count)]), max_size=min(2, count - 1)))
    work = work_through(
        [Batch("ids", tuple(f"r{n}" for n in range(count)))], lambda batch: "spoilt" if bad & set(batch.ids) else None
    )
    through = {request for attempt in work.tried if attempt.reason is None for request in attempt.batch.ids}
    assert not work.stopped
    assert set(work.spoilt) == bad
    assert through == {f"r{n}" for n in range(count)} - bad


def test_when_everything_fails_no_request_is_blamed() -> None:
    work = work_through([Batch("ids", tuple(f"r{n}" for n in range(500)))], lambda batch: "the server is away")
    assert work.stopped
    assert work.spoilt == {}
    assert len(work.tried) < 20


def test_an_outage_stops_the_work_and_spares_all_but_what_failed_alone_before_it() -> None:
    def attempt(batch: Batch) -> str | None:
        if batch.ids == ("r2",):
            raise Away("no server")
        return "spoilt" if "r0" in batch.ids else None

    work = work_through([Batch("ids", (f"r{n}",)) for n in range(4)], attempt)
    assert [made.batch.ids for made in work.tried] == [("r0",), ("r1",)]
    assert (work.stopped, work.outage, work.spoilt) == (True, "no server", {"r0": "spoilt"})


def test_a_thousand_requests_are_batched_in_under_two_seconds(inbox: Inbox) -> None:
    inbox.add_all([request(reference=f"DSR-{n}") for n in range(1000)], "file")
    inbox.review(lambda target: ("", 1))
    started = time.process_time()
    made = batches(inbox.pending(3), 500)
    assert time.process_time() - started < 2
    assert [len(batch.ids) for batch in made] == [500, 500]
    assert os.path.getsize(inbox.ledger.path) < 4 << 20
