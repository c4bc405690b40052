"""What a promotion means for requests. The promoter knows only versions; here the requests follow the ledger's champion."""

from __future__ import annotations

from collections.abc import Sequence

from megu.core.files.ledger import Event
from megu.lineage.promoted.champions import MOVED, REJECTED, status
from megu.requests.inbox import Entry, Inbox
from megu.requests.states import PREFIX


def reconcile_all(inbox: Inbox) -> dict[str, list[str]]:
    """Call `reconcile` for every registered model that a request waits for."""
    moved = dict[str, list[str]]()
    for name in sorted({_model(entry.fact("version")) for entry in inbox.entries("verified", "approved")}):
        for to, requests in reconcile(inbox, name).items():
            moved.setdefault(to, []).extend(requests)
    return moved


def reconcile(inbox: Inbox, name: str) -> dict[str, list[str]]:
    """Bring requests to the state that follows from the champion of the registered model ``name``. Return which went where.

    A version has forgotten everything of its data set that any version before it forgot, so its promotion fulfils their requests as well.
    Requests of a version that was rejected, or made to follow a champion other than the present one, are accepted again. Safe to repeat,
    and to do in two processes at once.
    """
    events, moved = inbox.ledger.events(name), dict[str, list[str]]()
    ours = {entry.fact("version") for entry in inbox.entries()} - {""}
    for entry in inbox.entries("verified", "approved"):
        version = entry.fact("version")
        if _model(version) != name:
            continue
        promoted = _promotion_of(entry, events, name, ours) if version else None
        if promoted is not None:
            facts = {"version": f"{name}/{promoted.facts['version']}", "event": promoted.number}
            done = [inbox.move([entry.id], "approved", facts), inbox.move([entry.id], "promoted", facts)]
            moved.setdefault("promoted", []).extend(done[1])
        elif why := _dropped(entry, version, events, name):
            facts = {"why": why, "failed": "rejected" in why}
            # Only out of the state seen above: another process may have had it accepted since, which must not count twice.
            moved.setdefault("accepted", []).extend(inbox.move([entry.id], "accepted", facts, out_of=[entry.state]))
    return moved


def _promotion_of(entry: Entry, events: Sequence[Event], name: str, ours: set[str]) -> Event | None:
    """Return the first promotion of a version that has forgotten the request: its own, or a later one made by the processing flow."""
    verified = next(event.number for event in reversed(entry.events) if event.kind == f"{PREFIX}verified")
    own = _number(entry.fact("version"))
    for event in events:
        version = f"{name}/{event.facts.get('version')}"
        fits = event.kind == MOVED and event.facts["why"] == "promotion" and event.number > verified
        about = not entry.data or event.facts.get("data", entry.data) in ("", entry.data)
        if fits and about and version in ours and _number(version) >= own:
            return event
    return None


def _dropped(entry: Entry, version: str, events: Sequence[Event], name: str) -> str:
    """Return why the request's version will never be the champion; empty while it may."""
    if not version:
        return "no version of its model was registered"
    if any(event.kind == REJECTED and f"{name}/{event.facts['version']}" == version for event in events):
        return "its model was rejected"
    if entry.state == "verified" and (status(events).version or "") != entry.fact("champion"):
        return "its model was made to follow another champion"
    return ""


def _model(version: str) -> str:
    return version.rpartition("/")[0]


def _number(version: str) -> int:
    return int(version.rpartition("/")[2] or 0)
