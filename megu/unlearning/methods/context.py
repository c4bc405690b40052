"""What an unlearning method is, and what it receives besides the model and the data."""

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

#: What a method may need -> its description for a person.
NEEDS = {
    "perturbing": "the perturbing labels, which a labeler makes",
    "noise": "the feature-noise pair",
    "retain": "the retain set",
    "train_recipe": "the recipe that the original was trained by",
}


@dataclass(frozen=True)
class Context:
    """The inputs of a method. Those that it does not declare in `Method.needs` may be None.

    params: the method's own. forgotten: classes that leave the label space (empty for sub-class, random and ids requests).
    perturbing: of the forget set, in its order. fresh: makes a newly initialised network of the original's architecture.
    recipe: the recipe that trained the original. checkpoint: where a long method saves its state and continues from.
    chosen: what the method determined itself and a reader must know (a learning rate, say), as JSON; the method fills it.
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
    """Return ``value``; raise `Missing` with the name of that part of the context when it is None."""
    if value is None:
        raise Missing(f"this method needs context.{name}", f"give it {name}")
    return value


@dataclass(frozen=True, kw_only=True)
class Span:
    """The range in which a parameter is searched: from ``low`` to ``high`` times its base value, on a logarithmic scale.

    most: its largest allowed value. costs: whether the method takes that many times longer.
    """

    low: float
    high: float
    most: float = math.inf
    costs: bool = False

    def at(self, base: float, share: float) -> float:
        """Return the value at a share (0 to 1) of the way from ``low`` to ``high``; an integer, at least 1, where ``base`` is one."""
        value = min(base * math.pow(self.low, 1 - share) * math.pow(self.high, share), self.most)
        return max(round(value), 1) if isinstance(base, int) else value


def _spares_nothing(params: Any) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, kw_only=True)
class Method:
    """An unlearning method as it is registered.

    params: the frozen dataclass of its parameters. run: ``(model, forget, retain, context) -> model``; the input model is left unchanged.
    title, paper, cost: one line each, for a person. harder: which parameters to change, and in which direction, when the result still knows
    the forget set; empty where none helps. main: the numeric parameters that a search varies (`megu.promotion.ladder`), empty where
    there is nothing to search. needs: some of `NEEDS`. spares: those needs that certain parameters make unnecessary.
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
        """Return what has to be made before a run with these parameters."""
        return frozenset(self.needs) - self.spares(params)
