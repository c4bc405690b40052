"""What an unlearning method is, and what it is given beside the model and the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from megu.core.errors import MeguError
from megu.data.tensors import ImageSet
from megu.training.loop import TrainParams
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.noise import NoiseBank

T = TypeVar("T")

#: What a method may need, and what that is, for a person.
NEEDS = {
    "perturbing": "the perturbing labels, which a labeler makes",
    "noise": "the feature-noise pair",
    "retain": "the retain set",
    "train_recipe": "the recipe that the original was trained by",
}


@dataclass(frozen=True)
class Context:
    """What a method does not ask for by `Method.needs` may be None.

    params: the method's own. forgotten: classes that leave the label space (empty for sub-class, random and ids requests).
    perturbing: of the forget set, in its order. fresh: makes a newly initialised network of the original's architecture.
    recipe: what the original was trained by. checkpoint: where a long method leaves its state and goes on from.
    chosen: what the method found out by itself and a reader must know (a learning rate, say), as JSON; the method fills it.
    """

    params: Any
    seed: int
    num_classes: int
    forgotten: tuple[int, ...] = ()
    perturbing: Perturbing | None = None
    noise: NoiseBank | None = None
    fresh: Callable[[], nn.Module] | None = None
    recipe: TrainParams | None = None
    checkpoint: Path | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


class Missing(MeguError, ValueError):
    """A part of the context that the method needs is None."""


def require(value: T | None, name: str) -> T:
    """``value``, which must not be None; raises `Missing` naming the part of the context that is missing."""
    if value is None:
        raise Missing(f"this method needs context.{name}", f"give it {name}")
    return value


@dataclass(frozen=True, kw_only=True)
class Span:
    """How far from its base value a parameter is searched: from ``low`` to ``high`` times that, alike in logarithm.

    most: what it may be at most. costs: whether the method takes as many times longer.
    """

    low: float
    high: float
    most: float = math.inf
    costs: bool = False

    def at(self, base: float, share: float) -> float:
        """The value at a share (0 to 1) of the way from ``low`` to ``high``; whole, and at least 1, where ``base`` is."""
        value = min(base * math.pow(self.low, 1 - share) * math.pow(self.high, share), self.most)
        return max(round(value), 1) if isinstance(base, int) else value


def _spares_nothing(params: Any) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, kw_only=True)
class Method:
    """An unlearning method as the registry has it.

    params: the frozen dataclass of its parameters. run: ``(model, forget, retain, context) -> model``; the given model stays as it is.
    title, paper, cost: a line each, for a person. harder: which parameters to change, and which way, where the result still knows what it
    was to forget; empty where none helps. main: the numbers among the parameters that a search varies (`megu.promotion.ladder`), none where
    there is nothing to search. needs: some of `NEEDS`. spares: what of that certain parameters make superfluous.
    """

    params: type[Any]
    run: Callable[[nn.Module, ImageSet, ImageSet, Context], nn.Module]
    title: str
    paper: str
    cost: str
    harder: str = ""
    main: Mapping[str, Span] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    spares: Callable[[Any], frozenset[str]] = _spares_nothing

    def needed(self, params: Any) -> frozenset[str]:
        """What has to be made before a run with these parameters."""
        return frozenset(self.needs) - self.spares(params)
