"""What the processing flow does around its runs: who may process, what a kill leaves, what a failure says. No server, no training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from climbing import Runs
from data_fixtures import toy
from prefect.exceptions import Abort, Pause, TerminationSignal
from purge_fixtures import garments
from suppression_fixtures import listing

from megu.config.tree import load, parse
from megu.core.errors import MeguError
from megu.core.processes.interrupt import Stopped
from megu.core.project import Project
from megu.data import arrays
from megu.data.splits import ForgetParams, make_split
from megu.evaluation.summary import Summary
from megu.lineage.commitments import commit_all, fingerprint
from megu.lineage.index import Index, Row
from megu.lineage.keys import Keys
from megu.lineage.promoted.champions import MOVED
from megu.promotion.ladder import Costs
from megu.requests.batches import Attempt, Batch, Work, batches, work_through
from megu.requests.fulfilled import DatasetContents
from megu.requests.inbox import Inbox
from megu.requests.request import Request
from tasks.records import ladder, pinning, processing

LANE = processing.Lane("toy", parse({"data": {"name": "toy"}}), has=DatasetContents(toy()))


@pytest.fixture
def inbox(project: Project) -> Inbox:
    project.params.write_text("data: {name: toy}\n")
    return Inbox(project)


def request(name: str, **values: Any) -> Request:
    return Request(classes=(name,), basis="contract", requester="internal", due="2026-12-24", **values)


def accepted(inbox: Inbox, name: str) -> str:
    added = inbox.add(request(name)).id
    inbox.review(lambda target: ("", 1))
    return added


def never(*arguments: Any) -> Summary:
    raise AssertionError("nothing may be run")


HOLD = """
import sys, time
from pathlib import Path
from megu.core.project import Project
from tasks.records.processing import alone
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


def test_a_kill_is_no_failure_of_a_request_that_got_on_with_its_ladder(inbox: Inbox) -> None:
    for finished, failures in ((True, 0), (False, 1)):  # the second time no rung was finished since the run began
        one = accepted(inbox, "A")
        inbox.move([one], "processing", {"batch": "b1"})
        if finished:
            inbox.ledger.append(ladder.RUNG, "c1", {"number": 1, "batch": "b1", "outcome": "fail"})
        inbox.ledger.append(ladder.RUNG, "c2", {"number": 1, "batch": "b2", "outcome": "fail"})
        assert processing.recover(inbox) == [one]
        assert inbox.entry(one).failures == failures


@pytest.mark.parametrize(
    ("passes", "state", "says"), [([2], "verified", ""), ([], "accepted", "even the exact retrain (megu/2): forgotten")]
)
def test_a_batch_climbs_to_the_rung_that_passes_or_is_refused(
    project: Project, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, passes: list[int], state: str, says: str
) -> None:
    monkeypatch.setattr(processing.tracking, "client", lambda home: None)
    monkeypatch.setattr(processing.lineage, "aliases", lambda client, name: {})
    monkeypatch.setattr(ladder, "costs", lambda project, config: Costs(training=1.0, first=0, last=0, methods={}))
    failed = list[str]()
    monkeypatch.setattr(processing.signals, "gate_failed", lambda version, broken: failed.append(version))
    lane = processing.Lane(
        "toy",
        parse({"data": {"name": "toy"}, "promotion": {"ladder": {"methods": [], "trials": 2}}}),
        has=DatasetContents(toy()),
    )
    one, batch = accepted(inbox, "Shirt"), Batch("class", (accepted(inbox, "Shirt"),))
    assert processing.fulfil(project, lane, inbox, batch, Runs(passes)) is None
    entry = inbox.entry(one)
    assert (entry.state, entry.refused, bool(failed)) == (state, bool(says), bool(says))
    assert says in entry.reason
    assert inbox.pending(9) == []
    assert [event.facts["outcome"] for event in project.ledger.events(kind="ladder.")][-1] == ("refused" if says else "passed")
    assert project.ledger.check() == []


def test_a_batch_that_cannot_be_split_goes_back_with_a_reason_that_names_nobody(project: Project, inbox: Inbox) -> None:
    anna = accepted(inbox, "Anna Smith")
    why = processing.fulfil(project, LANE, inbox, Batch("class", (anna,)), never)
    assert why is not None
    assert "no class" in why
    assert "Anna" not in why
    assert (inbox.entry(anna).state, inbox.entry(anna).reason) == ("accepted", why)
    assert b"Anna" not in project.ledger.path.read_bytes()
    processing.blame(inbox, Work([Attempt(Batch("class", (anna,)), why)], stopped=False))
    assert inbox.entry(anna).failures == 1
    processing.blame(inbox, Work([Attempt(Batch("class", (anna,)), why)], stopped=True))
    assert inbox.entry(anna).failures == 1


@pytest.mark.parametrize("count", [1, 2, 6])
def test_an_outage_is_no_requests_fault_and_they_wait_as_they_were(project: Project, inbox: Inbox, count: int) -> None:
    names = [inbox.add(request("Shirt", reference=f"DSR-{number}")).id for number in range(count)]
    inbox.review(lambda target: ("", 1))
    tried = list[str]()

    def away(*arguments: Any) -> Summary:
        tried.append("once")
        raise MeguError("the MLflow server does not answer", "start it") from ConnectionRefusedError()

    work = work_through(batches(inbox.pending(3), 500), lambda batch: processing.fulfil(project, LANE, inbox, batch, away))
    processing.blame(inbox, work)
    assert (work.stopped, work.outage, tried) == (True, "the MLflow server does not answer: start it", ["once"])
    for entry in map(inbox.entry, names):
        assert (entry.state, entry.failures) == ("accepted", 0)
        assert entry.reason == "waits, an outage: the MLflow server does not answer: start it"


@pytest.mark.parametrize(
    "stop", [Stopped(), Pause(), Abort(), TerminationSignal(signal=signal.SIGTERM)], ids=lambda stop: type(stop).__name__
)
def test_a_run_that_is_stopped_or_suspended_counts_no_failure_and_the_next_one_takes_the_request(
    project: Project, inbox: Inbox, stop: BaseException
) -> None:
    asked = accepted(inbox, "Shirt")

    def stopped(*arguments: Any) -> Summary:
        raise stop

    with pytest.raises(type(stop)):
        processing.fulfil(project, LANE, inbox, Batch("class", (asked,)), stopped)
    entry = inbox.entry(asked)
    assert (entry.state, entry.failures, entry.reason) == ("accepted", 0, "the run was stopped")
    assert processing.recover(inbox) == []
    assert [request.id for request in inbox.pending(3)] == [asked]


def test_a_batch_that_was_withdrawn_meanwhile_is_not_run(project: Project, inbox: Inbox) -> None:
    gone = accepted(inbox, "Shirt")
    inbox.withdraw(gone)
    assert processing.fulfil(project, LANE, inbox, Batch("class", (gone,)), never) is None


def test_a_request_whose_private_file_is_gone_is_never_taken_for_fulfilled(project: Project, inbox: Inbox) -> None:
    lost, whole = accepted(inbox, "Shirt"), accepted(inbox, "Sandal")
    inbox.path(lost).unlink()
    why = processing.fulfil(project, LANE, inbox, Batch("class", (lost, whole)), never)
    assert why is not None
    assert f"the private file of {lost} is gone" in why
    assert [inbox.entry(request).state for request in (lost, whole)] == ["accepted", "accepted"]


def test_what_was_forgotten_stays_forgotten(project: Project, inbox: Inbox) -> None:
    before, new = accepted(inbox, "Shirt"), accepted(inbox, "Sandal")
    for state in ("processing", "unlearned", "verified", "approved", "promoted", "closed"):
        inbox.move([before], state, {"version": "megu/1"})  # type: ignore[arg-type]
    target = inbox.target(new)
    assert target is not None
    assert processing.forget_set(project, LANE.config, inbox, DatasetContents(toy()), [target]).classes == ("Sandal", "Shirt")


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
    assert processing.forget_set(project, LANE.config, inbox, DatasetContents(data), [sandal]).classes == ("Sandal",)
    project.ledger.append(MOVED, "megu", {"why": "promotion", "version": "1", "run_id": "r", "from": None})
    assert processing.forget_set(project, LANE.config, inbox, DatasetContents(data), [sandal]) == ForgetParams(
        classes=("Sandal", "Shirt")
    )
    for path in project.keys.iterdir():
        path.unlink()
    with pytest.raises(MeguError, match="recorded under another key"):
        processing.forget_set(project, LANE.config, inbox, DatasetContents(data), [sandal])


# --- a request and its data set ----------------------------------------------------------------------------------------------


def stored(project: Project, name: str, classes: tuple[str, ...], champion: str = "") -> None:
    """A tiny data set in the project; champion: a registered model that is of it."""
    images = np.random.default_rng(len(classes)).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    halves = (images[:9], np.arange(9) % len(classes)), (images[9:], np.arange(3) % len(classes))
    arrays.save(project.data(name), name=name, classes=classes, train=halves[0], test=halves[1], source="", licence="")
    if champion:
        facts = {"why": "promotion", "version": "1", "run_id": "r", "from": None, "data": name}
        project.ledger.append(MOVED, champion, facts)


def configured(project: Project, text: str) -> Any:
    project.params.write_text(text)
    return load(project.params)


def test_a_request_under_one_data_set_is_processed_on_it_whatever_is_configured_now(project: Project) -> None:
    inbox, seen = Inbox(project), list[Any]()
    for name, classes in (("a", ("cat", "dog", "cow")), ("b", ("car", "cat", "bus"))):
        stored(project, name, classes)
    configured(project, "data: {name: a}")
    first = inbox.add(request("cat")).id
    config = configured(project, "data: {name: b, per_class: 1}")
    second = inbox.add(request("cat")).id

    def carry_out(project: Project, config: Any, *more: Any) -> Summary:
        seen.append((config.data.name, config.data.per_class, config.forget.classes))
        raise RuntimeError("seen")

    lanes = processing.lanes(project, config, inbox)
    assert list(lanes) == ["b", "a"]
    assert processing.review(inbox, lanes) == (2, 0)
    made = batches(processing.pending(inbox, lanes, 3), 500)
    assert [(batch.data, batch.ids) for batch in made] == [("a", (first,)), ("b", (second,))]
    for batch in made:
        processing.fulfil(project, lanes[batch.data], inbox, batch, carry_out)
    assert seen == [("a", None, ("cat",)), ("b", 1, ("cat",))]
    assert [inbox.entry(name).fact("data") for name in (first, second)] == ["a", "b"]
    assert lanes["a"].settings == ('data.name="a"', "data.per_class=null", 'registry.name="megu"')


@pytest.mark.parametrize(
    ("champion", "text", "model", "held"),
    [
        ("of-a", "data: {name: b}", "of-a", ""),
        ("of-a", "{data: {name: b}, original: {weights: b.pt}}", "of-a", ""),  # the champion is what it starts from
        ("", "{data: {name: b}, original: {weights: b.pt}}", "megu", "`original` is another's"),
        ("", "data: {name: b}", "megu", ""),
        ("megu", "data: {name: b}", "megu", ""),
    ],
)
def test_a_request_starts_from_the_champion_of_its_data_set_or_waits(
    project: Project, champion: str, text: str, model: str, held: str
) -> None:
    inbox = Inbox(project)
    stored(project, "a", ("cat", "dog", "cow"), champion)
    configured(project, "data: {name: a}")
    one = inbox.add(request("cat")).id
    inbox.review(lambda target: ("", 3))
    lane = processing.lanes(project, configured(project, text), inbox)["a"]
    assert (lane.config.data.name, lane.config.registry.name) == ("a", model)
    assert held in lane.held
    assert bool(held) == bool(lane.held)
    for _ in range(2):  # the reason is said once
        assert [waits.id for waits in processing.pending(inbox, {"a": lane}, 3)] == ([] if held else [one])
    entry = inbox.entry(one)
    assert (entry.state, entry.failures, entry.reason) == ("accepted", 0, lane.held)
    assert len(entry.events) == (3 if held else 2)


def test_a_request_does_not_start_from_the_champion_of_another_data_set(project: Project) -> None:
    inbox = Inbox(project)
    stored(project, "a", ("cat", "dog", "cow"), "megu")
    stored(project, "b", ("car", "bus", "van"))
    config = configured(project, "data: {name: b}")
    inbox.add(request("car"))
    assert "the champion of megu is of a: set registry.name" in processing.lanes(project, config, inbox)["b"].held
    assert processing.lanes(project, load(project.params, ["registry.name=b"]), inbox)["b"].held == ""


def test_what_the_champion_saw_is_what_requests_are_looked_up_in(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that the champion was trained on and the configured part of the data set lacks would be refused as none of it."""
    inbox = Inbox(project)
    stored(project, "a", ("cat", "dog", "cow"), "megu")
    config = configured(project, "data: {name: a, per_class: 1}")
    inbox.add(request("cat"))
    monkeypatch.setattr(processing, "_limit_of_champion", lambda project, model, otherwise: None)
    held = processing.lanes(project, config, inbox)["a"].held
    assert held.startswith("the champion of megu was made with data.per_class: null, and it is 1 now")
    assert processing.lanes(project, load(project.params, ["data.per_class=null"]), inbox)["a"].held == ""
    monkeypatch.setattr(processing, "_limit_of_champion", lambda project, model, otherwise: 2)
    lane = processing.lanes(project, load(project.params, ["data.name=b", "data.per_class=null"]), inbox)["a"]
    assert (lane.held, lane.config.data.per_class) == ("", 2)
    assert "data.per_class=2" in lane.settings


def test_what_was_forgotten_of_another_data_set_is_not_looked_for_in_this_one(project: Project, inbox: Inbox) -> None:
    stored(project, "other", ("Shirt", "Hat"))
    other = inbox.add(request("Shirt", data="other")).id
    inbox.review(lambda target: ("", 1))
    for state in ("processing", "unlearned", "verified", "approved", "promoted"):
        inbox.move([other], state, {"version": "of-other/1"})  # type: ignore[arg-type]
    new = inbox.target(accepted(inbox, "Sandal"))
    assert new is not None
    assert processing.forget_set(project, LANE.config, inbox, DatasetContents(toy()), [new]).classes == ("Sandal",)


def test_a_data_set_that_is_away_holds_up_its_own_requests_only(project: Project, inbox: Inbox) -> None:
    stored(project, "toy", ("Sandal", "Shirt", "Sneaker"))
    stored(project, "gone", ("Shirt", "Hat"))
    inbox.add(request("Shirt", data="gone"))
    one = inbox.add(request("Shirt")).id
    shutil.rmtree(project.data("gone"))
    lanes = processing.lanes(project, load(project.params), inbox)
    assert "no data set" in lanes["gone"].held
    assert processing.review(inbox, lanes) == (1, 0)
    assert [waits.id for waits in processing.pending(inbox, lanes, 3)] == [one]


def test_the_private_file_of_the_split_keeps_its_salt_while_the_requests_stay(project: Project) -> None:
    path = project.root / "forget.json"
    path.write_text(json.dumps({"data": "toy", "salt": "s"}))
    assert pinning._without_salt(path) == {"data": "toy"}
    path.write_text("{")
    assert pinning._without_salt(path) is None


def test_a_tag_that_is_too_long_says_where_the_rest_is() -> None:
    requests = [f"r{number:016x}" for number in range(500)]
    tag = processing._tag(requests)
    assert len(tag) < 5000
    assert tag.endswith("(500 in all, see the ledger)")
    assert processing._tag(requests[:2]) == " ".join(requests[:2])


def test_a_request_for_what_was_erased_is_told_by_whom_and_when(project: Project, inbox: Inbox) -> None:
    erased = garments(2, size=3)
    header = listing(project, erased, data="toy").header
    ids = [value.decode() for value in arrays.image_ids(erased).tolist()]
    added = inbox.add(Request(ids=tuple(ids), basis="contract", requester="internal", due="2026-12-24")).id
    assert processing.review(inbox, {"toy": LANE}) == (0, 1)
    why = inbox.entry(added).reason
    assert why == f"2 of 2 ids are not training images of the data set: 2 of them erased {header}"
    assert not any(value in why for value in ids)


def test_copies_of_what_is_forgotten_are_in_the_batch_where_they_are_included(project: Project, inbox: Inbox) -> None:
    images = garments(12, size=16)
    images[8:10] = images[:2] - images[:2] // 100
    parts = (images, np.arange(12) // 4), (garments(3, seed=1, size=16), np.arange(3))
    data = arrays.Dataset.of(*parts, ("Shirt", "Hat", "Sandal"))
    target = inbox.target(accepted(inbox, "Shirt"))
    assert target is not None
    for policy, forgotten in (("show", [0, 1, 2, 3]), ("include", [0, 1, 2, 3, 8, 9])):
        config = parse({"data": {"name": "toy"}, "forget": {"near_duplicates": policy}})
        asked = processing.forget_set(project, config, inbox, DatasetContents(data), [target])
        assert make_split(data, asked, 0).forget.tolist() == forgotten
