"""What follows a promotion, each step safe to repeat: make the probes, notify the webhook, inspect the served model, close requests.

A promotion stands whatever the outcome of these. After a kill in between, the next `megu process` or `megu promote` continues;
`megu status` inspects again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.lineage.promoted.champions import MOVED
from megu.promotion.params import PromotionParams
from megu.requests.inbox import Entry, Inbox
from megu.serving import check, choosing, http, webhook
from megu.serving.check import Seen

#: The event recording that the server was seen to serve the champion; its subject is the registered model.
SEEN = "served.seen"


@dataclass(frozen=True)
class Followed:
    """seen: what the server has; None where none is configured. closed: requests that closed now. troubles: what failed, one line each."""

    seen: Seen | None = None
    closed: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def follow(project: Project, name: str, params: PromotionParams) -> Followed:
    """Do everything that follows the last move of every registered model's champion. name: the model that ``promotion.served`` serves."""
    troubles = []
    for move in last_moves(project):
        for step in (lambda move: choosing.ensure(project, move), lambda move: webhook.tell(project, move, params)):
            if trouble := _trouble(step, move):
                troubles.append(trouble)
    seen, closed, more = inspect_served(project, name, params)
    return Followed(seen, closed, troubles + more)


def said(done: Followed) -> list[str]:
    """Describe the outcome, one line each."""
    seen = [f"the server: {done.seen.says}"] if done.seen else []
    return [*done.troubles, *seen, *([f"closed with it: {', '.join(done.closed)}"] if done.closed else [])]


def inspect_served(project: Project, name: str, params: PromotionParams) -> tuple[Seen | None, list[str], list[str]]:
    """Inspect the configured server; where it serves the champion, record that once and close the requests that it fulfils.

    Returns what was seen, the requests that closed, and what failed, one line each.
    """
    if not params.served:
        return None, [], []
    try:
        seen = check.inspect_server(project, name, http.address(params.served, "promotion.served"))
    except MeguError as error:
        return None, [], [str(error)]
    try:
        return seen, close(project, name, seen), []
    except MeguError as error:
        return seen, [], [str(error)]


def close(project: Project, name: str, seen: Seen) -> list[str]:
    """Record that the champion is served, and close the promoted requests of its registered model; return which closed.

    Every champion has forgotten what any earlier one forgot (`megu.promotion.guard`), so all of them close.
    """
    if seen.verdict != "champion":
        return []
    if (event := seen_event(project, name, seen.move)) is None:
        event = project.ledger.append(SEEN, name, {"event": seen.move, "version": seen.version})
    inbox = Inbox(project)
    mine = [entry.id for entry in inbox.entries("promoted") if entry.fact("version").rpartition("/")[0] == name]
    return inbox.move(mine, "closed", {"served": f"{name}/{seen.version}", "event": event.number})


def seen_event(project: Project, name: str, move: int) -> Event | None:
    """Return the event that recorded the server serving the champion of a move (its number in the ledger)."""
    return next((event for event in project.ledger.events(name, SEEN) if event.facts["event"] == move), None)


def refuse_unseen(project: Project, name: str, params: PromotionParams, entry: Entry) -> None:
    """Raise `MeguError` for a request whose model has not been seen on the server, where one is configured."""
    if not params.served or entry.state != "promoted" or entry.fact("version").rpartition("/")[0] != name:
        return
    move = next((move for move in last_moves(project) if move.subject == name), None)
    if move is None or seen_event(project, name, move.number) is None:
        raise MeguError(
            f"{entry.id}: the server of promotion.served was not seen to serve the champion",
            "reload it; `megu status` looks again and closes the request",
        )


def last_moves(project: Project) -> list[Event]:
    """Return the last move of each registered model's champion."""
    return list({event.subject: event for event in project.ledger.events(kind=MOVED)}.values())


def _trouble(step: Callable[[Event], object], move: Event) -> str:
    try:
        step(move)
    except MeguError as error:
        return str(error)
    return ""
