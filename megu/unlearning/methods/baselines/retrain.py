"""The true retrain as a method, which every other method approximates. It takes nothing from the original but its recipe."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from megu.core.params import STRICT
from megu.data.tensors import ImageSet
from megu.training.retrain import retrain
from megu.unlearning.methods.context import Context, Method, require


@dataclass(frozen=True, kw_only=True)
class RetrainParams:
    """None of its own: the recipe is the original's (``train``)."""

    __pydantic_config__ = STRICT


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Train a new network on the retain set only; with the reference's seed it has exactly the weights of the reference."""
    recipe, fresh = require(context.recipe, "recipe"), require(context.fresh, "fresh")
    return retrain(retain, recipe, context.num_classes, context.seed, fresh=fresh, checkpoint=context.checkpoint)


METHOD = Method(
    params=RetrainParams,
    run=unlearn,
    title="Train a new network on the retain set by the original's recipe: exact, and the reference",
    paper="the definition of exact unlearning: Cao and Yang, Towards making systems forget with machine unlearning, S&P 2015",
    cost="a whole training on the retain set",
    needs=("retain", "train_recipe"),
)
