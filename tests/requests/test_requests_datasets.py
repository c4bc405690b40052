"""Which data set a request is about, and what comes of one that is asked again; by the ledger and the private files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from data_fixtures import toy

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.erasure.plan import _named_files
from megu.lineage.keys import Keys
from megu.lineage.promoted.champions import MOVED
from megu.requests.inbox import Done, Inbox
from megu.requests.reconciling import reconcile, reconcile_all
from megu.requests.request import Request, identity


@pytest.fixture
def inbox(project: Project) -> Inbox:
    configured(project, "a")
    return Inbox(project)


def configured(project: Project, name: str) -> None:
    project.params.write_text(f"data: {{name: {name}}}\n")


def there(project: Project, *names: str) -> None:
    for name in names:
        project.data(name).mkdir(parents=True)
        (project.data(name) / "meta.json").write_text("{}")


def request(**values: Any) -> Request:
    return Request(**{"classes": ("Bag",), "basis": "contract", "requester": "internal", "due": "2026-12-24", **values})


def went(inbox: Inbox, one: str, *states: str, **facts: Any) -> None:
    for state in states:
        assert inbox.move([one], state, facts) == [one]  # type: ignore[arg-type]


def test_a_request_names_the_data_set_that_was_configured_when_it_came_in(project: Project, inbox: Inbox) -> None:
    one = inbox.add(request()).id
    configured(project, "b")
    two = inbox.add(request())
    assert two.new, "the same class of another data set is another request"
    assert [(entry.id, entry.data) for entry in inbox.entries()] == [(one, "a"), (two.id, "b")]
    assert json.loads(inbox.path(one).read_bytes())["data"] == "a"
    assert [event.facts["data"] for event in inbox.ledger.events(kind="request.received")] == ["a", "b"]
    assert [waits.data for waits in (inbox.review(lambda target: ("", 1)), inbox.pending(3))[1]] == ["a", "b"]


def test_a_request_may_name_another_data_set_that_there_is(project: Project, inbox: Inbox) -> None:
    there(project, "c")
    assert inbox.entry(inbox.add(request(data="c")).id).data == "c"
    head = inbox.ledger.head
    with pytest.raises(MeguError, match="there is no data set 'nowhere': known here: c"):
        inbox.add_all([request(reference="DSR-1"), request(data="nowhere")], "file")
    assert inbox.ledger.head == head
    with pytest.raises(ValueError, match="a folder under data/"):
        request(data="../c")


# --- ledgers from before requests named a data set ---------------------------------------------------------------------------


def old(inbox: Inbox, states: Sequence[str] = (), **facts: Any) -> str:
    """A request as older versions wrote it."""
    key = Keys(inbox.project.keys).commitment_key(create=True)
    assert key is not None
    one = identity(key, request(), named=False)
    before = {name: value for name, value in request().facts.items() if name != "data"}
    inbox.ledger.append("request.received", one, {**before, "via": "command"})
    went(inbox, one, *states, **facts)
    return one


def test_an_old_request_is_about_the_only_data_set_that_the_project_ever_had(project: Project, inbox: Inbox) -> None:
    there(project, "a")
    one = old(inbox)
    assert [entry.data for entry in inbox.entries()] == ["a"]
    assert inbox.entry(one).to_json()["data"] == "a"
    again = inbox.add(request())
    assert (again.id, again.new) == (one, False), "under the id that it has"


@pytest.mark.parametrize("second", ["folder", "setting", "champion"])
def test_an_old_request_of_a_project_with_two_data_sets_is_of_none(project: Project, inbox: Inbox, second: str) -> None:
    there(project, "a", *(["b"] if second == "folder" else []))
    if second == "setting":
        configured(project, "b")
    if second == "champion":
        inbox.ledger.append(MOVED, "megu", {"why": "promotion", "version": "1", "data": "b"})
    old(inbox)
    assert [entry.data for entry in inbox.entries()] == [""]


def test_an_old_request_that_a_run_forgot_is_of_the_data_set_of_the_run(project: Project, inbox: Inbox) -> None:
    there(project, "a", "b")
    (project.dossiers / "run").mkdir(parents=True)
    (project.dossiers / "run" / "dossier.json").write_text(json.dumps({"data": {"name": "b"}}))
    old(inbox, ["accepted", "processing", "unlearned"], mlflow_run="run")
    assert [entry.data for entry in inbox.entries()] == ["b"]


# --- asked again -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "states", [["withdrawn"], ["rejected"], ["accepted", "withdrawn"], ["accepted", "processing", "rejected"]]
)
def test_what_was_withdrawn_or_rejected_is_a_new_request_when_it_is_asked_again(inbox: Inbox, states: list[str]) -> None:
    first = inbox.add(request()).id
    went(inbox, first, *states)
    inbox.path(first).unlink()  # a purge
    second = inbox.add(request(due="2027-01-31"))
    assert second.new
    assert second.id != first
    assert not inbox.path(first).exists()
    assert inbox.target(second.id) == request().target
    assert inbox.entry(second.id).due == "2027-01-31"
    assert inbox.entry(first).state == states[-1], "and that stays so"
    assert inbox.add(request()).id == second.id
    went(inbox, second.id, "withdrawn")
    assert inbox.add(request()).id not in (first, second.id)
    assert inbox.ledger.check() == []


@pytest.mark.parametrize("states", [["promoted"], ["promoted", "closed"]])
def test_what_is_fulfilled_is_answered_with_that_and_nothing_is_written(inbox: Inbox, states: list[str]) -> None:
    first = inbox.add(request()).id
    went(inbox, first, "accepted", "processing", "unlearned", "verified", "approved", *states)
    inbox.path(first).unlink()
    head, since = inbox.ledger.head, inbox.entry(first).events[-1].time[:10]
    with pytest.raises(Done, match=f"the request is fulfilled already: {first} is {states[-1]} since {since}"):
        inbox.add(request())
    with pytest.raises(Done, match="request 2 is fulfilled already"):
        inbox.add_all([request(reference="DSR-1"), request()], "file")
    assert (inbox.ledger.head, list(inbox.project.requests.iterdir())) == (head, [])
    assert inbox.add(request(reference="DSR-2")).new


@pytest.mark.parametrize(
    ("states", "written"), [([], True), (["accepted", "processing"], True), (["accepted", "processing", "unlearned"], False)]
)
def test_what_is_open_is_there_already_and_has_its_file_for_as_long_as_it_needs_one(
    inbox: Inbox, states: list[str], written: bool
) -> None:
    first = inbox.add(request()).id
    went(inbox, first, *states)
    inbox.path(first).unlink()
    assert inbox.add(request()).new is False
    assert inbox.path(first).exists() == written


# --- what a promotion means --------------------------------------------------------------------------------------------------


def test_a_version_of_one_data_set_fulfils_no_request_for_another(project: Project, inbox: Inbox) -> None:
    there(project, "b")
    names = {data: inbox.add(request(data=data)).id for data in ("a", "b")}
    for number, one in enumerate(names.values(), start=1):
        went(inbox, one, "accepted", "processing", "unlearned", "verified", version=f"megu/{number}", champion="")
    inbox.ledger.append(MOVED, "megu", {"why": "promotion", "version": "2", "data": "b", "run_id": "x"})
    assert reconcile_all(inbox) == {"promoted": [names["b"]], "accepted": [names["a"]]}


def test_an_old_request_whose_data_set_nobody_knows_follows_its_version(project: Project, inbox: Inbox) -> None:
    there(project, "a", "b")
    one = old(inbox, ["accepted", "processing", "unlearned", "verified"], version="megu/1", champion="")
    inbox.ledger.append(MOVED, "megu", {"why": "promotion", "version": "1", "data": "b", "run_id": "x"})
    assert reconcile_all(inbox) == {"promoted": [one]}


def test_the_champion_of_another_registered_model_means_nothing_for_a_request(inbox: Inbox) -> None:
    one = inbox.add(request()).id
    went(inbox, one, "accepted", "processing", "unlearned", "verified", version="megu/1", champion="")
    inbox.ledger.append(MOVED, "other", {"why": "promotion", "version": "7", "data": "a", "run_id": "x"})
    assert reconcile(inbox, "other") == {} == reconcile_all(inbox)


def test_a_purge_takes_a_file_that_a_request_names_for_one_of_its_data_set(project: Project, inbox: Inbox) -> None:
    named = np.array([f"cat/{number}".encode() for number in range(30)])
    datasets = [replace(toy(seed), name=name, train=replace(toy(seed).train, names=named)) for seed, name in enumerate("ab")]
    ours = {datasets[0].train.ids[3]}
    one = inbox.path(inbox.add(request(classes=(), files=("cat/3.png",))).id)
    assert _named_files(one, datasets) == ours
    value = json.loads(one.read_bytes())
    for about, found in (({"name": "b"}, {datasets[1].train.ids[3]}), ("", ours | {datasets[1].train.ids[3]})):
        one.write_text(json.dumps({**value, "data": about}))
        assert _named_files(one, datasets) == found
