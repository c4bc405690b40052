"""Notify a URL of a promotion: a small JSON message, tried a few times. A failure is one line, undoes nothing, and the next run tries
again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.promotion.params import PromotionParams
from megu.serving import http

#: The event recording that a move was sent; its subject is the registered model.
SENT = "webhook.sent"
#: Seconds per try, pauses between tries, and the size limit of an answer, which is ignored.
PATIENCE_S, PAUSES_S, MOST = 10.0, (1.0, 4.0), 1_000_000
#: The environment variable with the token that the receiver requires, if any.
TOKEN = "MEGU_WEBHOOK_TOKEN"


def tell(project: Project, move: Event, params: PromotionParams, pause: Callable[[float], None] = time.sleep) -> None:
    """Send a move of the champion that has not been sent yet. It may arrive twice, if this process is killed just after sending it.

    Raises `MeguError` when every try failed.
    """
    if not params.webhook or is_told(project, move):
        return
    url = http.address(params.webhook, "promotion.webhook")
    body = json.dumps(message(move)).encode()
    for seconds in (*PAUSES_S, None):
        try:
            answer = http.post(url, body, token=os.environ.get(TOKEN, ""), seconds=PATIENCE_S, most=MOST)
            if 200 <= answer.status < 300:
                project.ledger.append(SENT, move.subject, {"event": move.number})
                return
            failed = MeguError(f"{http.origin(url)} answers {answer.status}", "look into its log")
        except MeguError as error:
            failed = error
        if seconds is None:
            raise MeguError(f"the webhook of {move.subject}/{move.facts['version']} failed: {failed.what}", failed.fix)
        pause(seconds)


def is_told(project: Project, move: Event) -> bool:
    return any(event.facts["event"] == move.number for event in project.ledger.events(move.subject, SENT))


def message(move: Event) -> dict[str, object]:
    """Return the message. It names no sample, request or person."""
    facts = move.facts
    return {
        "event": "champion.moved",
        "why": facts["why"],
        "model": move.subject,
        "version": facts["version"],
        "before": facts["from"],
        "model_uri": f"models:/{move.subject}/{facts['version']}",
        "evidence": facts["seal"],
        "time": move.time,
    }
