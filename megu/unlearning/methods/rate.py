"""The learning rate of a re-optimisation, found by trying: no user tunes one for their network.

A rate that moves one network the right way wrecks another, and hardly moves a third. What tells them apart needs no retrain: how far the
taught model is from the targets of the forget set, and how far it has come from the original on retained images that were not
taught. Both are distances between answers in nats, and their sum is smallest at the rate that forgets without damage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from megu.training.loop import NotFinite

#: One step of the search: half an order of magnitude.
STEP = math.sqrt(10)
#: The most rates that are tried.
MOST_TRIED = 6


@dataclass(frozen=True)
class Tried:
    """lr: the rate. forget: KL divergence of the model's answers from the targets of the forget set; retain: from the original's answers to
    retained images that were not taught; both means in nats, infinite where the training left the finite numbers."""

    lr: float
    forget: float
    retain: float

    @property
    def loss(self) -> float:
        return self.forget + self.retain


def search(attempt: Callable[[float], Tried], first: float) -> list[Tried]:
    """What ``attempt`` says of some rates, the best among them: from the ``first`` upwards while it gets better, and where the first step up
    was none, downwards.

    Raises `megu.training.loop.NotFinite` where no rate gave a finite model.
    """
    tried: list[Tried] = []
    fault: NotFinite | None = None

    def better(rate: float) -> bool:
        """Try a rate; whether it is the best so far."""
        nonlocal fault
        judged = Tried(rate, math.inf, math.inf)
        try:
            found = attempt(rate)
            judged = found if math.isfinite(found.loss) else judged
        except NotFinite as error:
            fault = error
        best_yet = judged.loss < min((entry.loss for entry in tried), default=math.inf)
        tried.append(judged)
        return best_yet

    rate = first
    while better(rate) and len(tried) < MOST_TRIED and rate * STEP <= 1:
        rate *= STEP
    if min(tried, key=lambda entry: entry.loss).lr == first:  # no step up was better
        rate = first / STEP
        while (better(rate) or not any(math.isfinite(entry.loss) for entry in tried)) and len(tried) < MOST_TRIED:
            rate /= STEP
    if not any(math.isfinite(entry.loss) for entry in tried):
        raise fault or NotFinite("unlearn: no learning rate gives answers that are finite numbers", "set unlearn.lr")
    return tried
