"""Find the learning rate of a re-optimisation by trying several, so that no user has to tune one for their network.

A rate that moves one network the right way ruins another, and hardly moves a third. Two measures tell good from bad without a retrain: how
far the trained model is from the targets of the forget set, and how far it has moved from the original on retained images that were not
trained on. Both are distances between answers in nats, and their sum is smallest at the rate that forgets without damage.
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
    retained images that were not trained on; both means in nats, infinite where the training was not finite."""

    lr: float
    forget: float
    retain: float

    @property
    def loss(self) -> float:
        return self.forget + self.retain


def search(attempt: Callable[[float], Tried], first: float) -> list[Tried]:
    """Return what ``attempt`` returns for several rates, including the best: from ``first`` upwards while it improves, or downwards if the
    first step up does not improve it.

    Raises `megu.training.loop.NotFinite` where no rate gave a finite model.
    """
    tried: list[Tried] = []
    fault: NotFinite | None = None

    def better(rate: float) -> bool:
        """Try a rate; return whether it is the best so far."""
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
    if min(tried, key=lambda entry: entry.loss).lr == first:  # the step up was not better
        rate = first / STEP
        while (better(rate) or not any(math.isfinite(entry.loss) for entry in tried)) and len(tried) < MOST_TRIED:
            rate /= STEP
    if not any(math.isfinite(entry.loss) for entry in tried):
        raise fault or NotFinite("unlearn: no learning rate gives finite answers", "set unlearn.lr")
    return tried
