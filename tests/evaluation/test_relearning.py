from __future__ import annotations

import copy

import pytest
import torch
from method_fixtures import Linear, points
from tiny import images
from torch import nn

from megu.evaluation.params import EvaluationParams, RelearnParams
from megu.evaluation.relearning import ASKED, accuracy, relearn, sample_queries

#: Two images of class 1, pixel 1.0. Adam's first steps move each weight by its rate, 0.1, against the sign of the gradient.
FORGET = points([[255], [255]], [1, 1])
RECIPE = RelearnParams(steps=20, tolerance=0, lr=0.1, batch_size=2)


@pytest.mark.parametrize(
    ("lead", "steps"),
    [
        (-0.1, 0),  # class 1 is ahead from the start
        (0.1, 1),  # a step moves both weights by 0.1 towards each other, 0.2 in all
        (0.3, 2),
        (0.5, 3),
    ],
)
def test_the_steps_by_hand(lead: float, steps: int) -> None:
    """Class 0 is ahead by ``lead``; Adam on a gradient of one sign takes steps of the rate."""
    assert relearn(Linear([[lead], [0.0]]), FORGET, 100.0, RECIPE, seed=0) == steps


def test_what_is_not_back_in_time_is_not_known() -> None:
    assert relearn(Linear([[0.5], [0.0]]), FORGET, 100.0, RelearnParams(steps=2, lr=0.1, batch_size=2), seed=0) is None
    assert relearn(Linear([[0.5], [0.0]]), FORGET, 100.0, RelearnParams(steps=3, lr=0.1, batch_size=2), seed=0) == 3


def test_the_tolerance_is_in_the_target() -> None:
    """One of two right is 50%: enough for a target of 50, not for one of 51."""
    two = points([[255, 0], [0, 255]], [0, 0])
    model = Linear([[1.0, 0.0], [0.0, 1.0]])
    assert relearn(model, two, 50.0, RECIPE, seed=0) == 0
    assert relearn(model, two, 51.0, RECIPE, seed=0) != 0


def test_the_given_model_and_its_batch_statistics_stay(original: nn.Module) -> None:
    before = copy.deepcopy(original.state_dict())
    forget = images(40, seed=1)
    assert relearn(original, forget, 101.0, RelearnParams(steps=2), seed=0) is None
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())


def test_a_forgotten_class_comes_back_and_the_same_seed_counts_the_same(original: nn.Module) -> None:
    every = images(200)
    forget = every.subset((every.labels == 2).nonzero().flatten().numpy())
    lost = copy.deepcopy(original)
    with torch.no_grad():
        lost.head.bias[2] -= 20.0  # type: ignore[union-attr, operator, index]
    assert accuracy(original, forget) > 90
    assert accuracy(lost.eval(), forget) == 0
    recipe = RelearnParams(steps=300, lr=0.001, batch_size=16)
    first, second = (relearn(lost, forget, 90.0, recipe, seed=0) for _ in range(2))
    assert first is not None
    assert first > 1
    assert first == second
    assert relearn(original.eval(), forget, 90.0, recipe, seed=0) == 0


def test_it_looks_at_no_more_than_it_says() -> None:
    many = images(ASKED + 20)
    assert len(sample_queries(many, 0)) == ASKED
    assert len(sample_queries(images(8), 0)) == 8


def test_the_recipe_of_relearning_does_not_know_the_shadows() -> None:
    one, two = EvaluationParams(shadows=0, relearn=True), EvaluationParams(shadows=4)
    assert one.relearning == two.relearning
