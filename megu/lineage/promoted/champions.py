"""Which version is, and was, the champion according to the ledger. MLflow's aliases have no history; these events are that history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megu.core.files.ledger import Event

#: The alias of the version in production, and of the one before it; only `megu.promotion.moves` moves them.
CHAMPION, PREVIOUS = "champion", "previous_champion"

#: Kinds of events; the subject is the registered model. An intent is followed by one of the other two, unless the process was killed.
INTENDED, MOVED, UNDONE = "champion.intended", "champion.moved", "champion.undone"
REJECTED = "challenger.rejected"


@dataclass(frozen=True)
class Status:
    """version: the champion after the last finished move; None before the first. intent: a move that was begun and is not finished.

    last: number of the newest of these events, 0 before the first.
    """

    version: str | None = None
    intent: Event | None = None
    last: int = 0


def status(events: Sequence[Event]) -> Status:
    """Return the champion's status after the events of one registered model."""
    now = Status()
    for event in events:
        if event.kind == INTENDED:
            now = Status(now.version, event, event.number)
        elif event.kind == MOVED:
            now = Status(str(event.facts["version"]), None, event.number)
        elif event.kind == UNDONE:
            now = Status(now.version, None, event.number)
    return now


def promotions(events: Sequence[Event]) -> list[Mapping[str, Any]]:
    """Return the facts of every finished promotion (no rollbacks), oldest first."""
    return [event.facts for event in events if event.kind == MOVED and event.facts["why"] == "promotion"]


def rejection(events: Sequence[Event], seal: str) -> Event | None:
    """Return the event that rejected the evidence under this seal; None where there is none."""
    return next((event for event in events if event.kind == REJECTED and event.facts["seal"] == seal), None)
