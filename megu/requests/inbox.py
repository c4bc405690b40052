"""The inbox: requests as the ledger knows them, and their targets in private files that a purge can delete.

The ledger has counts, dates and words from closed lists; what a request names lies in ``.megu/requests/<id>.json``, which only its
owner can read. The file is written before the event, so an event always has its file; the same request gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from megu.errors import MeguError
from megu.ledger import Event, Ledger, Refused, Writer
from megu.lineage.keys import Keys
from megu.project import Project
from megu.requests.batches import Batch, Pending
from megu.requests.request import Request, identity
from megu.requests.states import OPEN, PREFIX, STATES, State, failures, refusal, state_of
from megu.store import canonical_json, writing


@dataclass(frozen=True)
class Entry:
    """A request as the ledger has it, oldest event first."""

    id: str
    events: Sequence[Event]
    target: Mapping[str, Sequence[str]] | None = field(repr=False, default=None)

    @property
    def state(self) -> State:
        found = state_of(self.events)
        assert found is not None
        return found

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it came in with."""
        return self.events[0].facts

    @property
    def due(self) -> str:
        return str(self.facts["due"])

    @property
    def failures(self) -> int:
        return failures(self.events)

    @property
    def reason(self) -> str:
        """Why it is where it is, as far as anyone said."""
        return str(self.events[-1].facts.get("why", ""))

    def fact(self, name: str) -> str:
        """The newest value of a fact; empty when no event has it."""
        return next((str(event.facts[name]) for event in reversed(self.events) if name in event.facts), "")

    def overdue(self, today: date) -> bool:
        return self.state in OPEN and self.due < today.isoformat()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            **self.facts,
            "received": self.events[0].time,
            "changed": self.events[-1].time,
            "failures": self.failures,
            "why": self.reason or None,
        }


@dataclass(frozen=True)
class Added:
    """new: False when the request was there already, and nothing has changed."""

    id: str
    new: bool
    state: State


@dataclass(frozen=True)
class Inbox:
    """The requests of a project. Creating the object touches nothing on disk."""

    project: Project

    @property
    def ledger(self) -> Ledger:
        return self.project.ledger

    def path(self, request: str) -> Path:
        """The private file of a request."""
        return self.project.requests / f"{request}.json"

    def add(self, request: Request, via: str = "command") -> Added:
        """Take a request in; adding it again changes nothing. via: "command", "file" or "http"."""
        return self.add_all([request], via)[0]

    def add_all(self, requests: Sequence[Request], via: str) -> list[Added]:
        """Take requests in, all of them or none."""
        key = Keys(self.project.keys).commitment_key(create=True)
        assert key is not None
        named = [(identity(key, request), request) for request in requests]
        for name, request in named:
            _write(self.path(name), canonical_json(request.to_json()))
        added = []
        with self.ledger.transaction() as writer:
            for name, request in named:
                state = state_of(writer.events(name))
                if state is None:
                    writer.append(f"{PREFIX}received", name, {**request.facts, "via": via})
                added.append(Added(name, state is None, state or "received"))
        return added

    def entries(self, *states: State) -> list[Entry]:
        """The requests in these states (all, without one), the oldest first."""
        return [entry for entry in grouped(self.ledger.events(kind=PREFIX)) if not states or entry.state in states]

    def entry(self, request: str) -> Entry:
        """One request, with its target if that is still kept. Raises `MeguError` when there is none."""
        events = self.ledger.events(request, PREFIX)
        if not events:
            raise MeguError(f"there is no request {request}", "`megu request list` names them")
        return Entry(request, events, self.target(request))

    def target(self, request: str) -> dict[str, list[str]] | None:
        """What a request names; None once that was deleted."""
        try:
            value = json.loads(self.path(request).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise MeguError(f"{self.path(request)} cannot be read ({error})", "restore it from a backup") from None
        return {name: list(value[name]) for name in ("classes", "subclasses", "ids", "files")}

    def move(
        self, requests: Iterable[str], to: State, facts: Mapping[str, Any], *, out_of: Collection[State] = STATES
    ) -> list[str]:
        """Bring requests to another state, those that are in one of ``out_of`` and may go there; returns which did."""
        moved = []
        with self.ledger.transaction() as writer:
            for request in requests:
                if _move(writer, request, to, facts, out_of):
                    moved.append(request)
        return moved

    def withdraw(self, request: str) -> None:
        """Take a request back. Raises `MeguError` when there is none, or it is too late."""
        events = self.entry(request).events
        if state_of(events) == "withdrawn":
            return
        try:
            self.ledger.append(f"{PREFIX}withdrawn", request, {}, unless=lambda events: refusal(events, "withdrawn"))
        except Refused as error:
            raise MeguError(f"{request}: {error}", "what a run has begun is finished; see `megu request show`") from None

    def retry(self, request: str) -> None:
        """Let a request that failed too often be tried again. Raises `MeguError` when there is none that waits."""
        events = self.entry(request).events
        if state_of(events) != "accepted" or not failures(events):
            raise MeguError(f"{request} does not wait for another try: it is {state_of(events)}", "nothing is to be done")
        self.move([request], "accepted", {"again": True, "why": "asked for by a person"})

    def judge(self, fault: Callable[[Mapping[str, Sequence[str]]], tuple[str, int]]) -> tuple[int, int]:
        """Accept or reject every request that came in; returns how many of each.

        fault: of a target, why it cannot be (empty when it can) and how many training images it is.
        """
        judged: list[tuple[str, State, dict[str, Any]]] = []
        for entry in self.entries("received"):
            target = self.target(entry.id)
            why, count = fault(target) if target else ("what it names was deleted", 0)
            judged.append((entry.id, "rejected", {"why": why}) if why else (entry.id, "accepted", {"samples": count}))
        with self.ledger.transaction() as writer:
            moved = [to for request, to, facts in judged if _move(writer, request, to, facts)]
        return moved.count("accepted"), moved.count("rejected")

    def pending(self, attempts: int) -> list[Pending]:
        """What can be processed: accepted, and not failed too often."""
        return [
            Pending(entry.id, str(entry.facts["kind"]), entry.due, entry.events[0].number, entry.failures)
            for entry in self.entries("accepted")
            if entry.failures < attempts
        ]

    def held(self, attempts: int) -> list[Entry]:
        """What failed so often that a person must look at it."""
        return [entry for entry in self.entries("accepted") if entry.failures >= attempts]

    def claim(self, batch: Batch, facts: Mapping[str, Any]) -> Batch:
        """Begin to process a batch; returns it without what was withdrawn or taken by another run meanwhile."""
        return Batch(batch.kind, tuple(self.move(batch.ids, "processing", {**facts, "batch": batch.id})))


def grouped(events: Iterable[Event]) -> list[Entry]:
    """Requests from their events, the oldest first."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.subject, []).append(event)
    return [Entry(request, own) for request, own in found.items()]


def _move(writer: Writer, request: str, to: State, facts: Mapping[str, Any], out_of: Collection[State] = STATES) -> bool:
    def stays(events: Sequence[Event]) -> str | None:
        return refusal(events, to) if state_of(events) in out_of else f"it is {state_of(events)} by now"

    try:
        writer.append(f"{PREFIX}{to}", request, facts, unless=stays)
    except Refused:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """A private file, whole or not at all; one that is there stays (the name comes of what it names)."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with writing(path) as temporary:  # made readable by its owner only
        temporary.write_bytes(content)
