"""What the processing flow does around its runs: who may process, what a kill leaves, what a failure says. No server, no training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from data_fixtures import toy

from megu.champions import MOVED
from megu.config import parse
from megu.data.splits import ForgetParams
from megu.errors import MeguError
from megu.lineage.commitments import commit_all, fingerprint
from megu.lineage.index import Index, Row
from megu.lineage.keys import Keys
from megu.project import Project
from megu.requests.batches import Attempt, Batch, Work
from megu.requests.fulfilled import Known
from megu.requests.inbox import Inbox
from megu.requests.request import Request
from megu.summary import Summary
from tasks import processing


@pytest.fixture
def inbox(project: Project) -> Inbox:
    return Inbox(project)


def accepted(inbox: Inbox, name: str) -> str:
    added = inbox.add(Request(classes=(name,), basis="contract", requester="internal", due="2026-12-24")).id
    inbox.judge(lambda target: ("", 1))
    return added


def never(*arguments: Any) -> Summary:
    raise AssertionError("nothing may be run")


HOLD = """
import sys, time
from pathlib import Path
from megu.project import Project
from tasks.processing import alone
with alone(Project(Path(sys.argv[1]))) as free:
    print(free, flush=True)
    time.sleep(300)
"""


def test_one_process_processes_and_a_kill_frees_its_place(project: Project) -> None:
    with processing.alone(project) as free, processing.alone(project) as second:
        assert (free, second) == (True, False)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(project.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with processing.alone(project) as free:
        assert not free
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with processing.alone(project) as free:
        assert free


@pytest.mark.parametrize("state", ["processing", "unlearned"])
def test_what_a_killed_run_had_in_hand_is_accepted_again_once(inbox: Inbox, state: str) -> None:
    lost, done, waits = (accepted(inbox, name) for name in ("A", "B", "C"))
    for request, states in ((lost, ["processing", "unlearned"]), (done, ["processing", "unlearned", "verified"])):
        for step in states:
            inbox.move([request], step, {"version": "megu/1"})  # type: ignore[arg-type]
            if request == lost and step == state:
                break
    assert processing.recover(inbox) == [lost]
    assert processing.recover(inbox) == []
    assert [inbox.entry(request).state for request in (lost, done, waits)] == ["accepted", "verified", "accepted"]
    assert [inbox.entry(request).failures for request in (lost, done, waits)] == [1, 0, 0]


def test_a_batch_that_cannot_be_split_goes_back_with_a_reason_that_names_nobody(project: Project, inbox: Inbox) -> None:
    anna = accepted(inbox, "Anna Smith")
    why = processing.fulfil(project, parse({}), inbox, Known(toy()), Batch("class", (anna,)), never)
    assert why is not None
    assert "no class" in why
    assert "Anna" not in why
    assert (inbox.entry(anna).state, inbox.entry(anna).reason) == ("accepted", why)
    assert b"Anna" not in project.ledger.path.read_bytes()
    processing.blame(inbox, Work([Attempt(Batch("class", (anna,)), why)], stopped=False))
    assert inbox.entry(anna).failures == 1
    processing.blame(inbox, Work([Attempt(Batch("class", (anna,)), why)], stopped=True))
    assert inbox.entry(anna).failures == 1


def test_a_batch_that_was_withdrawn_meanwhile_is_not_run(project: Project, inbox: Inbox) -> None:
    gone = accepted(inbox, "Shirt")
    inbox.withdraw(gone)
    assert processing.fulfil(project, parse({}), inbox, Known(toy()), Batch("class", (gone,)), never) is None


def test_a_request_whose_private_file_is_gone_is_never_taken_for_fulfilled(project: Project, inbox: Inbox) -> None:
    lost, whole = accepted(inbox, "Shirt"), accepted(inbox, "Sandal")
    inbox.path(lost).unlink()
    why = processing.fulfil(project, parse({}), inbox, Known(toy()), Batch("class", (lost, whole)), never)
    assert why is not None
    assert f"the private file of {lost} is gone" in why
    assert [inbox.entry(request).state for request in (lost, whole)] == ["accepted", "accepted"]


def test_what_was_forgotten_stays_forgotten(project: Project, inbox: Inbox) -> None:
    before, new = accepted(inbox, "Shirt"), accepted(inbox, "Sandal")
    for state in ("processing", "unlearned", "verified", "approved", "promoted", "closed"):
        inbox.move([before], state, {"version": "megu/1"})  # type: ignore[arg-type]
    target = inbox.target(new)
    assert target is not None
    assert processing.forget_set(project, "megu", inbox, Known(toy()), [target]).classes == ("Sandal", "Shirt")


def test_what_a_promoted_version_forgot_without_a_request_stays_forgotten(project: Project, inbox: Inbox) -> None:
    data = toy()
    shirts = [identifier for identifier, label in zip(data.train.ids.tolist(), data.train.labels, strict=True) if label == 1]
    key, index = Keys(project.keys).commitment_key(create=True), Index(project.index)
    assert key is not None
    blank: dict[str, Any] = {field.name: "" for field in fields(Row)}
    made = {"run_id": "r", "forgotten": index.put(commit_all(key, shirts)), "key": fingerprint(key), "given": 0}
    index.add([Row(**{**blank, **made})])
    sandal = inbox.target(accepted(inbox, "Sandal"))
    assert sandal is not None
    assert processing.forget_set(project, "megu", inbox, Known(data), [sandal]).classes == ("Sandal",)
    project.ledger.append(MOVED, "megu", {"why": "promotion", "version": "1", "run_id": "r", "from": None})
    assert processing.forget_set(project, "megu", inbox, Known(data), [sandal]) == ForgetParams(classes=("Sandal", "Shirt"))
    for path in project.keys.iterdir():
        path.unlink()
    with pytest.raises(MeguError, match="recorded under another key"):
        processing.forget_set(project, "megu", inbox, Known(data), [sandal])


def test_the_private_file_of_the_split_keeps_its_salt_while_the_requests_stay(project: Project) -> None:
    path = project.root / "forget.json"
    path.write_text(json.dumps({"data": "toy", "salt": "s"}))
    assert processing._without_salt(path) == {"data": "toy"}
    path.write_text("{")
    assert processing._without_salt(path) is None


def test_a_tag_that_is_too_long_says_where_the_rest_is() -> None:
    requests = [f"r{number:016x}" for number in range(500)]
    tag = processing._tag(requests)
    assert len(tag) < 5000
    assert tag.endswith("(500 in all, see the ledger)")
    assert processing._tag(requests[:2]) == " ".join(requests[:2])
