"""The deep checks tell a class that is hidden from one that was never learned."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import images
from torch import nn

from megu.core.errors import MeguError
from megu.data.tensors import ImageSet
from megu.evaluation.deep import ASKED, RETAINED, SHOWN, Drawn, Gaussian, check, draw, fine_tune, probe
from megu.evaluation.gate import DEEP, GateParams, decide
from megu.evaluation.params import DeepParams, EvaluationParams
from megu.training.loop import TrainParams, predict, train

FORGOTTEN, CLASSES = 2, 4
RECIPE = TrainParams(epochs=5, batch_size=16, augment="none")
#: Networks as small as these, asked about a hundred images, are farther apart than real ones (benchmarks/hidden.py).
GATE = GateParams(deep_margin=25)
PARAMS = DeepParams(steps=10, batch_size=16)
METRICS = [metric for metric, _ in DEEP.values()]


def parts(data: ImageSet) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Positions of the class that is forgotten, and of the others."""
    gone = data.labels.numpy() == FORGOTTEN
    return np.flatnonzero(gone), np.flatnonzero(~gone)


def alike(seed: int) -> ImageSet:
    """480 images in which the forgotten class has the first one's square, but for a faint texture: who never saw it has no use for that."""
    data = images(480, seed=seed)
    pixels = torch.randint(0, 90, data.pixels.shape, generator=torch.Generator().manual_seed(seed + 99))
    pixels[:, :, :4, :4] += 120
    texture = 12 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2 - 1)
    gone = (data.labels == FORGOTTEN)[:, None, None, None]
    return replace(data, pixels=torch.where(gone, (pixels + texture).clamp(0, 255), data.pixels).to(torch.uint8))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    data, test = alike(0), alike(1)
    return draw(data, test, *parts(data), parts(test)[1], seed=0)


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.set_num_threads(1)
    return train(alike(0), RECIPE, CLASSES, seed=0)


@pytest.fixture(scope="module")
def retrained() -> list[nn.Module]:
    data = alike(0)
    return [train(data.subset(parts(data)[1]), RECIPE, CLASSES, seed) for seed in range(3)]


def struck_out(model: nn.Module) -> nn.Module:
    hidden = copy.deepcopy(model)
    with torch.no_grad():
        hidden.head.weight[FORGOTTEN] = 0  # type: ignore[union-attr, operator, index]
        hidden.head.bias[FORGOTTEN] = -30  # type: ignore[union-attr, operator, index]
    return hidden


def evaluation(unlearned: dict[str, float], reference: dict[str, float]) -> dict[str, Any]:
    """Evidence whose other metrics are the retrain's own."""
    same = {"Af": 0.0, "Af_train": 0.0, "Ar": 90.0, "MIA": 50.0}
    marks = {
        name: {"metrics": {**same, **found}, "per_class": [90.0]}
        for name, found in (("unlearned", unlearned), ("reference", reference))
    }
    return {"original": {"metrics": {"Af": 97.0}}, **marks, "deep_asked": 100}


def test_what_is_hidden_fails_probe_and_retain_only_relearning_and_retrains_of_three_seeds_pass_all(
    original: nn.Module, retrained: list[nn.Module], drawn: Drawn
) -> None:
    """The hidden class is answered by no image, as the retrain answers it."""
    hidden = struck_out(original).eval()
    assert not (predict(hidden, drawn.asked).logits.argmax(1) == FORGOTTEN).any()
    found = check(hidden, drawn, CLASSES, PARAMS, seed=0)
    seeds = [check(model, drawn, CLASSES, PARAMS, seed=0) for model in retrained]
    for reference in seeds:
        verdict = decide(evaluation(found, reference), GATE, champion="1")
        failed = {rule.rule for rule in verdict.rules if rule.holds is False}
        assert {"probe", "relearned from the rest"} <= failed <= set(DEEP), (found, seeds)
        assert verdict.still_remembered
        for other in seeds:
            assert decide(evaluation(other, reference), GATE, champion="1").decision == "pass", seeds


def test_the_given_model_stays_and_the_same_seed_measures_the_same(original: nn.Module, drawn: Drawn) -> None:
    before = copy.deepcopy(original.state_dict())
    first, second = (check(original, drawn, CLASSES, DeepParams(steps=2), seed=3) for _ in range(2))
    assert first == second
    assert set(first) == set(METRICS)
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())


def test_a_rate_that_leaves_the_finite_numbers_is_said_in_one_line(original: nn.Module, drawn: Drawn) -> None:
    with pytest.raises(MeguError, match=r"relearn: .* at step .* of 30, learning rate 1e\+30: lower the learning rate"):
        fine_tune(copy.deepcopy(original), [drawn.retained, drawn.shown], DeepParams(steps=30, lr=1e30), seed=0)


@settings(max_examples=30, deadline=None)
@given(forgotten=st.integers(1, 60), seed=st.integers(0, 5))
def test_no_image_is_shown_and_asked_about_and_some_are_always_asked(forgotten: int, seed: int) -> None:
    data = images(96)
    numbered = ImageSet(torch.arange(96, dtype=torch.uint8)[:, None, None, None], data.labels, data.mean, data.std)
    forget, retain = np.arange(forgotten), np.arange(forgotten, 96)
    found = draw(numbered, numbered, forget, retain, retain, seed)
    shown, asked, retained = (set(part.images.flatten().tolist()) for part in (found.shown, found.asked, found.retained))
    assert len(shown) == min(SHOWN, forgotten // 2)
    assert shown | asked == set(range(forgotten))
    assert not shown & asked
    assert retained == set(range(forgotten, 96))
    assert len(asked) >= 1


def test_no_more_are_asked_than_it_says() -> None:
    data = images(2 * ASKED + 2 * RETAINED, size=2)
    forget, retain = np.arange(2 * ASKED), np.arange(2 * ASKED, len(data))
    found = draw(data, data, forget, retain, retain, 0)
    assert (len(found.shown), len(found.asked), len(found.retained), len(found.test)) == (SHOWN, ASKED, RETAINED, RETAINED)


def test_single_images_are_right_where_their_own_class_is_nearest_and_need_no_shown_one(original: nn.Module) -> None:
    data, test = alike(0), alike(1)
    single, rest = np.array([1]), np.delete(np.arange(len(data)), 1)
    found = draw(data, test, single, rest, np.arange(len(test)), 0)
    assert (len(found.shown), len(found.asked), list(found.kept)) == (0, 1, [0, 1, 2, 3])
    assert check(original, found, CLASSES, DeepParams(steps=1), seed=0) == dict.fromkeys(METRICS, 100.0)


def test_the_probe_separates_what_a_line_separates_however_few_there_are_of_a_class() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 2], [200, 5])
    inputs = generator.normal(size=(205, 3)) + 8.0 * (labels == 2)[:, None]
    weight, bias = probe(inputs, labels, 3)
    assert ((inputs @ weight + bias).argmax(1) == labels).all()
    assert not weight[:, 1].any(), "a class that is not there has no weight"


def test_the_gaussian_layer_has_mahalanobis_distances_and_keeps_to_its_false_alarms() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat([1, 3], 400)
    spread = np.array([[3.0, 0.0], [1.0, 0.2]])
    inputs = generator.normal(size=(800, 2)) @ spread + np.array([[0.0, 0.0], [20.0, 0.0]])[labels // 2]
    layer = Gaussian.fit(inputs, labels)
    means = np.stack([inputs[labels == k].mean(0) for k in (1, 3)])
    inside = inputs - means[labels // 2]
    inverse = np.linalg.inv(inside.T @ inside / 800)
    expected = np.einsum("nci,ij,ncj->nc", inputs[:, None] - means, inverse, inputs[:, None] - means)
    assert layer.distances(inputs) == pytest.approx(expected, rel=0.15, abs=0.15), "but for the little that it is shrunk"
    unseen = np.full(800, 2)
    assert layer.right(inputs, unseen, inputs, np.array([1, 3])).mean() == pytest.approx(0.05, abs=0.002)
    assert layer.right(inputs, labels, inputs, np.array([1, 3])).all()
    assert layer.right(np.array([[10.0, 30.0]]), np.array([2]), inputs, np.array([1, 3])).all()


def test_the_recipe_of_the_deep_checks_knows_nothing_else() -> None:
    assert EvaluationParams(deep=True).checks == EvaluationParams(shadows=4, relearn=True, seed=1).checks
