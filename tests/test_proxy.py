from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import images

from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.models import build
from megu.perturbing import MOST, sharpened
from megu.proxy import (
    HOTTEST,
    ProxyParams,
    fitting_exponents,
    perturb_by_proxy,
    smaller,
    temperature,
    train_proxy,
)
from megu.training import Batches, TrainParams, predict

RECIPE = TrainParams(epochs=2, batch_size=80, augment="none")


def fresh() -> torch.nn.Module:
    return build("resnet-compact", 4, 1, seed=9)


def test_auto_makes_one_where_the_original_has_memorised_or_every_class_stays() -> None:
    auto = ProxyParams()
    assert auto.refusal(0.995, (1,)) is None
    assert auto.refusal(0.5, ()) is None
    assert "93.0% of its training images" in str(auto.refusal(0.93, (1,)))
    assert ProxyParams(when="always").refusal(0.1, (1,)) is None
    assert ProxyParams(when="never").refusal(1.0, ()) == "not asked for"


@pytest.mark.parametrize(("key", "value"), [("share", 0.0), ("share", 1.1), ("memorised", -0.1)])
def test_what_is_out_of_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        ProxyParams(**{key: value})  # type: ignore[arg-type]


def test_a_smaller_recipe_takes_as_many_steps() -> None:
    recipe = smaller(TrainParams(batch_size=250), 0.1)
    assert recipe.batch_size == 25
    assert Batches(5400, recipe.batch_size, 0).per_epoch == Batches(54_000, 250, 0).per_epoch
    assert smaller(TrainParams(batch_size=16), 0.1).batch_size == 8, "batch norm needs some"


def test_the_proxy_learns_only_the_share_and_nothing_of_what_it_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageSet] = []
    monkeypatch.setattr("megu.proxy.fit", lambda model, given, *rest, **named: seen.append(given))
    retain = images(400)
    train_proxy(retain, RECIPE, 0.1, fresh, seed=0)
    train_proxy(retain, RECIPE, 0.1, fresh, seed=0)
    train_proxy(retain, RECIPE, 0.1, fresh, seed=1)
    assert [len(given) for given in seen] == [40, 40, 40]
    first, again, other = (given.images for given in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    whole = {image.numpy().tobytes() for image in retain.images}
    assert {image.numpy().tobytes() for image in first} <= whole


def test_the_proxy_learns() -> None:
    model = train_proxy(images(400), TrainParams(epochs=6, batch_size=80, augment="none"), 0.25, fresh, seed=0)
    asked = images(80, seed=5)
    assert float((predict(model, asked).logits.argmax(1) == asked.labels).float().mean()) > 0.8


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_temperature_undoes_a_scaling(factor: float) -> None:
    logits = np.random.default_rng(0).normal(size=(200, 5)) * 2
    assert temperature(logits * factor, logits) == pytest.approx(factor, rel=1e-4)


def test_a_temperature_out_of_reach_is_the_furthest_one() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 5))
    assert temperature(logits, logits * 1e6) == pytest.approx(1 / HOTTEST)
    assert temperature(logits, logits * 0) == pytest.approx(HOTTEST)


@settings(max_examples=50)
@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(0.01, 1)), hnp.arrays(np.float64, 4, elements=st.floats(0.05, 1.55)))
def test_each_row_gets_the_entropy_asked_for_or_the_nearest(rows: np.ndarray, wanted: np.ndarray) -> None:
    rows = rows / rows.sum(axis=1, keepdims=True)
    exponents = fitting_exponents(rows, wanted)
    found = entropies(sharpened(rows, exponents[:, None]))
    inside = (exponents > 1.01 / MOST) & (exponents < 0.99 * MOST)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-3)
    assert (found[exponents >= 0.99 * MOST] >= wanted[exponents >= 0.99 * MOST] - 1e-3).all()


T = np.array([[0.8, 0.1, 0.2], [0.1, 0.7, 0.3], [0.1, 0.2, 0.5]])


def test_the_targets_by_hand() -> None:
    """Class 0 is forgotten: p = (0, .6, .4), T p = (·, .7 * .6 + .3 * .4, .2 * .6 + .5 * .4) = (·, .54, .32), sharpened to p's entropy."""
    logits = np.log(np.array([[0.5, 0.3, 0.2]]))
    plain = perturb_by_proxy(T, logits, (0,), 1.0)
    np.testing.assert_allclose(plain.reasoning, [[0, 0.54 / 0.86, 0.32 / 0.86]])
    np.testing.assert_allclose(plain.targets, plain.reasoning, atol=1e-7)
    # Two classes: equal entropy is equal probabilities.
    fitted = perturb_by_proxy(T, logits, (0,), "auto")
    np.testing.assert_allclose(fitted.targets, [[0, 0.6, 0.4]], atol=1e-4)
    assert (fitted.labels.tolist(), fitted.entropy) == ([1], None)


def test_a_class_that_stays_may_be_the_answer() -> None:
    """The proxy is sure of class 2, and nothing says whether that is the sample's own: it is what a retrain would say."""
    found = perturb_by_proxy(np.eye(3), np.array([[0.0, 1.0, 9.0]]), (), "auto")
    np.testing.assert_allclose(found.targets, softmax(np.array([[0.0, 1.0, 9.0]])), atol=1e-4)


@settings(max_examples=50)
@given(
    hnp.arrays(np.float64, (6, 5), elements=st.floats(-40, 40)),
    hnp.arrays(np.float64, (5, 5), elements=st.floats(0.001, 1)),
    st.sets(st.integers(0, 4), max_size=4),
)
def test_targets_are_distributions_without_what_is_forgotten(rows: np.ndarray, matrix: np.ndarray, forgotten: set[int]) -> None:
    found = perturb_by_proxy(matrix / matrix.sum(axis=0), rows, sorted(forgotten), "auto")
    np.testing.assert_allclose(found.targets.sum(axis=1), 1, atol=1e-5)
    assert (found.targets[:, sorted(forgotten)] == 0).all()
    assert not set(found.labels.tolist()) & forgotten


def test_no_class_left_is_said() -> None:
    with pytest.raises(ValueError, match="no perturbing label is left"):
        perturb_by_proxy(T, np.zeros((1, 3)), (0, 1, 2), "auto")
