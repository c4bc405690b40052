"""The inbox: requests as the ledger knows them, and their targets in private files that a purge can delete.

The ledger has counts, dates and values from closed lists; what a request names is in ``.megu/requests/<id>.json``, which only its
owner can read. The file is written before the event, so an event always has its file; the same request gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.files.ledger import Event, Ledger, Refused, Writer
from megu.core.files.store import canonical_json, writing
from megu.core.project import Project
from megu.lineage.keys import Keys
from megu.requests import datasets
from megu.requests.batches import Batch, Pending
from megu.requests.request import TARGETS, Request, identity
from megu.requests.states import DONE, DROPPED, FORGOTTEN, OPEN, PREFIX, STATES, State, failures, refusal, refused, state_of

#: Why a request about a person is fulfilled without a model.
NEVER_SEEN = "no model of the data set is trained on any of the samples; the next purge erases them"


@dataclass(frozen=True)
class Entry:
    """A request as the ledger has it, oldest event first. data: its data set, empty where unknown (`datasets.of_old_request`)."""

    id: str
    events: Sequence[Event]
    target: Mapping[str, Sequence[str]] | None = field(repr=False, default=None)
    data: str = ""

    @property
    def state(self) -> State:
        found = state_of(self.events)
        assert found is not None
        return found

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts with which it came in."""
        return self.events[0].facts

    @property
    def due(self) -> str:
        return str(self.facts["due"])

    @property
    def failures(self) -> int:
        return failures(self.events)

    @property
    def refused(self) -> bool:
        """Whether it waits for a person because not even the exact retrain passes the gate."""
        return self.state == "accepted" and refused(self.events)

    @property
    def reason(self) -> str:
        """Why it is in its present state, if a reason was recorded."""
        return str(self.events[-1].facts.get("why", ""))

    def fact(self, name: str) -> str:
        """Return the newest value of a fact; empty when no event has it."""
        return next((str(event.facts[name]) for event in reversed(self.events) if name in event.facts), "")

    def overdue(self, today: date) -> bool:
        return self.state in OPEN and self.due < today.isoformat()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            **self.facts,
            "data": self.data,
            "received": self.events[0].time,
            "changed": self.events[-1].time,
            "failures": self.failures,
            "refused": self.refused,
            "why": self.reason or None,
        }


@dataclass(frozen=True)
class Added:
    """new: False when the request was already there and nothing has changed."""

    id: str
    new: bool
    state: State


@dataclass(frozen=True)
class _Place:
    """Where a request belongs: its id, and the state of the request that already has that id."""

    id: str
    state: State | None


class Done(MeguError):
    """Raised for requests that are already fulfilled: nothing was written. entries: each with its number among the ``asked`` ones."""

    def __init__(self, entries: Sequence[tuple[int, Entry]], asked: int) -> None:
        self.entries = entries
        (number, first), *others = entries
        which = f"request {number}" if asked > 1 else "the request"
        what = f"{which} is fulfilled already: {first.id} is {first.state} since {first.events[-1].time[:10]}"
        more = f", and so are {len(others)} more" if others else ""
        super().__init__(f"{what}{more}; nothing was taken in", "if the data came back, ask again under a new reference")


@dataclass(frozen=True)
class Inbox:
    """The requests of a project. Creating the object touches nothing on disk."""

    project: Project

    @property
    def ledger(self) -> Ledger:
        return self.project.ledger

    def path(self, request: str) -> Path:
        """Return the private file of a request."""
        return self.project.requests / f"{request}.json"

    def add(self, request: Request, via: str = "command") -> Added:
        """Take a request in; see `add_all`. via: "command", "file" or "http"."""
        return self.add_all([request], via)[0]

    def add_all(self, requests: Sequence[Request], via: str) -> list[Added]:
        """Take requests in, all of them or none. One that is already open changes nothing; one that was withdrawn or rejected before
        becomes a new request, with its own id.

        Raises `Done` for one that is already fulfilled, and `MeguError` for an unknown data set.
        """
        key = Keys(self.project.keys).commitment_key(create=True)
        assert key is not None
        asked = [self._for_data_set(request) for request in requests]
        while True:
            placed = [self._place(key, request) for request in asked]
            if done := [(number, place.id) for number, place in enumerate(placed, start=1) if place.state in DONE]:
                raise Done([(number, self.entry(name)) for number, name in done], len(placed))
            for place, request in zip(placed, asked, strict=True):
                # Written again where it was lost and is still needed; if the request is forgotten, what a purge deleted stays deleted.
                if place.state is None or place.state not in FORGOTTEN:
                    _write(self.path(place.id), canonical_json(request.to_json()))
            added = self._append(placed, asked, via)
            if added is not None:
                return added

    def _for_data_set(self, request: Request) -> Request:
        now = datasets.configured(self.project)
        if request.data in ("", now):
            return replace(request, data=now)
        datasets.must_exist(self.project, request.data)
        return request

    def _place(self, key: bytes, request: Request) -> _Place:
        """Return the id of a request and its state: the first id that is not taken by a withdrawn or rejected request."""
        unnamed = identity(key, request, named=False)
        old = self.ledger.events(unnamed, PREFIX)
        if old and state_of(old) not in DROPPED and self._with_data(Entry(unnamed, old)).data in ("", request.data):
            return _Place(unnamed, state_of(old))
        for earlier in count():
            name = identity(key, request, earlier=earlier)
            state = state_of(self.ledger.events(name, PREFIX))
            if state not in DROPPED:
                return _Place(name, state)
        raise AssertionError("the counter never ends")

    def _append(self, placed: Sequence[_Place], requests: Sequence[Request], via: str) -> list[Added] | None:
        """Append in one transaction. Return None, with nothing appended, when a request changed its state in the meantime."""
        added = []
        with self.ledger.transaction() as writer:
            states = [state_of(writer.events(place.id)) for place in placed]
            if any(now in DROPPED | DONE for now in states):
                return None
            for place, request, before in zip(placed, requests, states, strict=True):
                now = before or state_of(writer.events(place.id))  # the same request twice in one file
                if now is None:
                    writer.append(f"{PREFIX}received", place.id, {**request.facts, "via": via})
                added.append(Added(place.id, now is None, now or "received"))
        return added

    def entries(self, *states: State) -> list[Entry]:
        """Return the requests in these states (without any: all), the oldest first."""
        found = [entry for entry in grouped(self.ledger.events(kind=PREFIX)) if not states or entry.state in states]
        return [self._with_data(entry) for entry in found]

    def _with_data(self, entry: Entry) -> Entry:
        return entry if entry.data else replace(entry, data=datasets.of_old_request(self.project, entry.events))

    def entry(self, request: str) -> Entry:
        """Return one request, with its target if that is still kept. Raises `MeguError` when there is none."""
        events = self.ledger.events(request, PREFIX)
        if not events:
            raise MeguError(f"there is no request {request}", "`megu request list` names them")
        return self._with_data(Entry(request, events, self.target(request), data_of(events)))

    def target(self, request: str) -> dict[str, list[str]] | None:
        """Return what a request names; None once that was deleted."""
        try:
            value = json.loads(self.path(request).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise MeguError(f"{self.path(request)} cannot be read ({error})", "restore it from a backup") from None
        return {name: list(value[name]) for name in TARGETS if name != "samples" or value.get(name)}

    def move(
        self, requests: Iterable[str], to: State, facts: Mapping[str, Any], *, out_of: Collection[State] = STATES
    ) -> list[str]:
        """Move the requests that are in one of ``out_of`` and may go there to another state. Return those that moved."""
        moved = []
        with self.ledger.transaction() as writer:
            for request in requests:
                if _move(writer, request, to, facts, out_of):
                    moved.append(request)
        return moved

    def withdraw(self, request: str) -> None:
        """Withdraw a request. Raises `MeguError` when there is none, or it is too late."""
        events = self.entry(request).events
        if state_of(events) == "withdrawn":
            return
        try:
            self.ledger.append(f"{PREFIX}withdrawn", request, {}, unless=lambda events: refusal(events, "withdrawn"))
        except Refused as error:
            raise MeguError(f"{request}: {error}", "what a run has begun will be finished; see `megu request show`") from None

    def retry(self, request: str) -> None:
        """Let a request that failed too often be tried again. Raises `MeguError` when it is not waiting for that."""
        events = self.entry(request).events
        if state_of(events) != "accepted" or not failures(events):
            raise MeguError(f"{request} is not waiting for another try: it is {state_of(events)}", "nothing needs to be done")
        self.move([request], "accepted", {"again": True, "why": "asked for by a person"})

    def review(
        self, fault: Callable[[Mapping[str, Sequence[str]]], tuple[str, int]], data: str | None = None
    ) -> tuple[int, int]:
        """Accept or reject every request that came in (data: of one data set only). Return how many were accepted and rejected.

        fault: for a target, returns why it cannot be fulfilled (empty when it can) and how many training images it covers. A request that
        covers none, because no model of the data set is trained on any of the person's samples, is fulfilled at once.
        """
        judged: list[tuple[str, State, dict[str, Any]]] = []
        for entry in self.entries("received"):
            if data not in (None, entry.data):
                continue
            target = self.target(entry.id)
            why, count = fault(target) if target else ("what it names was deleted", 0)
            judged.append((entry.id, "rejected", {"why": why}) if why else (entry.id, "accepted", {"samples": count}))
            if not why and not count:
                judged.append((entry.id, "promoted", {"why": NEVER_SEEN}))
        with self.ledger.transaction() as writer:
            moved = [to for request, to, facts in judged if _move(writer, request, to, facts)]
        return moved.count("accepted"), moved.count("rejected")

    def pending(self, attempts: int) -> list[Pending]:
        """Return what can be processed: accepted, not refused by the gate, and not failed too often."""
        return [
            Pending(entry.id, str(entry.facts["kind"]), entry.due, entry.events[0].number, entry.failures, entry.data)
            for entry in self.entries("accepted")
            if entry.failures < attempts and not entry.refused
        ]

    def held(self, attempts: int) -> list[Entry]:
        """Return what a person must look at: requests that failed too often, or for which not even the exact retrain passes the gate."""
        return [entry for entry in self.entries("accepted") if entry.failures >= attempts or entry.refused]

    def claim(self, batch: Batch, facts: Mapping[str, Any]) -> Batch:
        """Begin to process a batch. Return it without what was withdrawn or taken by another run in the meantime."""
        return replace(batch, ids=tuple(self.move(batch.ids, "processing", {**facts, "batch": batch.id})))


def grouped(events: Iterable[Event]) -> list[Entry]:
    """Return requests from their events, the oldest first."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.subject, []).append(event)
    return [Entry(request, own, data=data_of(own)) for request, own in found.items()]


def data_of(events: Sequence[Event]) -> str:
    """Return the data set with which a request came in; empty in ledgers from before requests named one."""
    return str(events[0].facts.get("data", ""))


def _move(writer: Writer, request: str, to: State, facts: Mapping[str, Any], out_of: Collection[State] = STATES) -> bool:
    def stays(events: Sequence[Event]) -> str | None:
        return refusal(events, to) if state_of(events) in out_of else f"it is {state_of(events)} by now"

    try:
        writer.append(f"{PREFIX}{to}", request, facts, unless=stays)
    except Refused:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a private file, whole or not at all; an existing one stays (its name is derived from its content)."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with writing(path) as temporary:  # readable by its owner only
        temporary.write_bytes(content)
