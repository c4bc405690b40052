"""The states of a request, as its events in the ledger give them, and the transitions between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from megu.core.files.ledger import Event

State = Literal[
    "received", "accepted", "processing", "unlearned", "verified", "approved", "promoted", "closed", "rejected", "withdrawn"
]
STATES: tuple[State, ...] = get_args(State)

#: A request that fails goes back to "accepted", with the reason; one whose samples no model was trained on goes from there to "promoted".
#: Nothing leaves "closed", "rejected" and "withdrawn".
TRANSITIONS: Mapping[State | None, frozenset[State]] = {
    None: frozenset({"received"}),
    "received": frozenset({"accepted", "rejected", "withdrawn"}),
    "accepted": frozenset({"accepted", "processing", "rejected", "withdrawn", "promoted"}),
    "processing": frozenset({"unlearned", "accepted", "rejected"}),
    "unlearned": frozenset({"verified", "accepted"}),
    "verified": frozenset({"approved", "accepted"}),
    "approved": frozenset({"promoted", "accepted"}),
    "promoted": frozenset({"closed"}),
    "closed": frozenset(),
    "rejected": frozenset(),
    "withdrawn": frozenset(),
}

#: A run is working on it, or was.
IN_FLIGHT: frozenset[State] = frozenset({"processing", "unlearned"})
#: A model forgot it, so no later model may bring it back, and no version may serve that was trained on it.
FORGOTTEN: frozenset[State] = frozenset({"unlearned", "verified", "approved", "promoted", "closed"})
#: Fulfilled: if it is asked again, that is the answer.
DONE: frozenset[State] = frozenset({"promoted", "closed"})
#: Nothing was forgotten for it: if it is asked again, it is a new request.
DROPPED: frozenset[State] = frozenset({"rejected", "withdrawn"})
OPEN: frozenset[State] = frozenset(STATES) - {"closed", "rejected", "withdrawn"}

PREFIX = "request."


def state_of(events: Sequence[Event]) -> State | None:
    """Return the state after these events of one request; None before the first."""
    for event in reversed(events):
        name = event.kind.removeprefix(PREFIX)
        if event.kind.startswith(PREFIX) and name in STATES:
            return name
    return None


def refusal(events: Sequence[Event], to: State) -> str | None:
    """Return why a request with these events may not go to ``to``; None when it may."""
    now = state_of(events)
    if to in TRANSITIONS[now]:
        return None
    return f"a request that is {now} cannot become {to}" if now else f"a request that is not known cannot become {to}"


def failures(events: Sequence[Event]) -> int:
    """Return how often the request failed since it came in, or since a person asked for another try."""
    count = 0
    for event in events:
        count = 0 if event.facts.get("again") else count + bool(event.facts.get("failed"))
    return count


def refused(events: Sequence[Event]) -> bool:
    """Return whether the gate refused even the exact retrain, and no person has asked for another try since."""
    found = False
    for event in events:
        found = not event.facts.get("again") and (found or bool(event.facts.get("refused")))
    return found
