"""Which version a running server has: it is sent the probes of the last promotion, and its answers are compared with what both versions
answered then.

The protocol is that of MLflow's scoring server: ``POST URL/invocations`` with ``{"instances": images}``, and the answer is
``{"predictions": probabilities}``. Any server that answers the same way will do.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage.promoted.champions import MOVED, status
from megu.lineage.promoted.probes import ORIGINAL, Probes
from megu.serving import choosing, http

#: How far a served probability may lie from the recorded one: ten times the allowed difference between two machines' arithmetic
#: (`megu.lineage.verify.replay`). Two versions that are nearer to each other on every probe cannot be told apart.
TOLERANCE = 0.001
#: Seconds for an answer, and bytes of one: a thousand probes of a thousand classes.
PATIENCE_S, MOST = 10.0, 32_000_000
#: The environment variable with the token that the server requires, if any.
TOKEN = "MEGU_SERVED_TOKEN"

Verdict = Literal["champion", "before", "unknown"]


@dataclass(frozen=True)
class Seen:
    """What was observed. verdict: the champion is served, the version before it still is, or it cannot be told. version: the champion's
    number, empty without one. move: number of the ledger's event that made it the champion. says: the result in one line."""

    verdict: Verdict
    says: str
    version: str = ""
    move: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "says": self.says, "champion": self.version or None}


def inspect_server(project: Project, name: str, url: str, seconds: float = PATIENCE_S) -> Seen:
    """Query the server at ``url`` and compare; where the result is unknown, it says why. name: of the registered model."""
    events = project.ledger.events(name)
    move = next((event for event in reversed(events) if event.kind == MOVED), None)
    if move is None:
        return Seen("unknown", f"cannot tell: no version of {name} has been promoted")
    version = str(move.facts["version"])
    if status(events).intent is not None:
        return Seen("unknown", "cannot tell: a promotion is under way, or was interrupted", version, move.number)
    try:
        made = choosing.ensure(project, move)
        numbers, images = choosing.images_of(project, made)
        verdict, says = compared(made, numbers, answers(url, images, seconds))
    except MeguError as error:
        return Seen("unknown", f"cannot tell: {error.what}", version, move.number)
    return Seen(verdict, says, version, move.number)


def answers(url: str, images: NDArray[np.uint8], seconds: float = PATIENCE_S) -> NDArray[np.float64]:
    """Return a server's answers about images uint8 (N, H, W, C): float64 (N, K). url: with or without ``/invocations``.

    Raises `MeguError` when it does not answer, or not as a scoring server does.
    """
    place = url.rstrip("/").removesuffix("/invocations") + "/invocations"
    where = http.origin(url)
    body = json.dumps({"instances": images.tolist()}).encode()
    answer = http.post(place, body, token=os.environ.get(TOKEN, ""), seconds=seconds, most=MOST)
    if answer.status in (401, 403):
        raise MeguError(f"{where} refuses the login ({answer.status})", f"export {TOKEN}=… as the server has it")
    if answer.status != 200:
        raise MeguError(f"{where} answers {answer.status}, not with predictions", "look into its log")
    try:
        found = np.asarray(json.loads(answer.content)["predictions"], dtype=np.float64)
        if found.ndim != 2 or len(found) != len(images) or not np.isfinite(found).all():
            raise ValueError("another shape")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MeguError(
            f"what answers at {where} is no scoring server of a classifier", "name the server's own address"
        ) from None
    return found


def compared(made: Probes, numbers: list[int], found: NDArray[np.float64]) -> tuple[Verdict, str]:
    """Decide whose answers these are. numbers: which of the probes were asked about. found: (N, K)."""
    champion = f"the champion (version {made.version})"
    other = "the original model, which knows what was to be forgotten" if made.before == ORIGINAL else f"version {made.before}"
    near = off(np.asarray(made.champion)[numbers], found) <= TOLERANCE
    if not made.before:
        if near:
            return "unknown", f"cannot tell: it answers as {champion}, but the answers of the version before it are not known"
        return "unknown", f"cannot tell: its answers are not those of {champion}"
    far = off(np.asarray(made.other)[numbers], found) <= TOLERANCE
    if near and far:
        return "unknown", f"cannot tell: the answers of {champion} and {other} are too similar"
    if near:
        return "champion", f"serves {champion}"
    if far:
        return "before", f"still serves {other}"
    return "unknown", f"cannot tell: its answers are neither those of {champion} nor those of {other}"


def off(recorded: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return the largest difference between two versions' probabilities; infinite where they have different classes."""
    return float(np.abs(recorded - found).max()) if recorded.shape == found.shape else float("inf")
