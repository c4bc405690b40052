from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.evaluation.attacks.shadows import Shadow, audit, half, log_ratio, rmia, true_log_probabilities
from megu.evaluation.condensed import condense

LOGS = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-50, 5))


@pytest.mark.parametrize("count", [10, 11])
def test_a_pair_shares_the_training_set_without_rest(count: int) -> None:
    first, second = half(count, 0, seed=3), half(count, 1, seed=3)
    np.testing.assert_array_equal(first, ~second)
    assert first.sum() == count // 2
    np.testing.assert_array_equal(first, half(count, 0, seed=3))


def test_other_pairs_seeds_and_populations_are_cut_elsewhere() -> None:
    cuts = [half(1000, 0, 0), half(1000, 2, 0), half(1000, 0, 1), half(1000, 0, 0, "test")]
    for number, cut in enumerate(cuts):
        for other in cuts[:number]:
            assert 0.4 < (cut == other).mean() < 0.6


def test_the_ratio_by_hand_with_two_shadows() -> None:
    """Two samples, each seen by one of two shadows, a = 0.3.

    x1 was seen by the first: p = (1.3 * 0.4 + 0.7) / 2 = 0.61, the model says 0.9. x2 by the second: (1.3 * 0.8 + 0.7) / 2 = 0.87,
    the model says 0.5.
    """
    shadows = np.log([[0.99, 0.8], [0.4, 0.99]])
    seen = np.array([[True, False], [False, True]])
    found = log_ratio(np.log([0.9, 0.5]), shadows, seen)
    np.testing.assert_allclose(np.exp(found), [0.9 / 0.61, 0.5 / 0.87])


def test_the_score_is_the_share_of_the_population_that_is_beaten() -> None:
    """Ratios 1, 2 and 4 as the population. gamma = 1: 2 is at least 1 and 2. gamma = 2: it is at least twice 1 alone."""
    population = np.log([1.0, 2.0, 4.0])
    asked = np.log([0.5, 2.0, 5.0])
    np.testing.assert_allclose(rmia(asked, population), [0, 2 / 3, 1])
    np.testing.assert_allclose(rmia(asked, population, gamma=2), [0, 1 / 3, 2 / 3])


@given(LOGS, LOGS, st.sampled_from([1.0, 2.0]))
def test_the_score_is_its_definition(asked: np.ndarray, population: np.ndarray, gamma: float) -> None:
    by_pairs = (asked[:, None] - math.log(gamma) >= population[None, :]).mean(axis=1)
    np.testing.assert_allclose(rmia(asked, population, gamma), by_pairs)


def test_a_sample_that_all_have_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        log_ratio(np.zeros(1), np.zeros((2, 1)), np.ones((2, 1), dtype=bool))


def test_a_probability_too_small_for_a_number_has_its_logarithm() -> None:
    np.testing.assert_allclose(
        true_log_probabilities(np.array([[0.0, 2000.0], [3.0, 3.0]]), np.array([0, 1])), [-2000, -math.log(2)]
    )


def logits(probabilities: np.ndarray, labels: np.ndarray, classes: int = 3) -> np.ndarray:
    """Of a model that gives the true label this probability, and the others equal shares of the rest."""
    p = np.repeat(((1 - probabilities) / (classes - 1))[:, None], classes, axis=1)
    p[np.arange(len(labels)), labels] = probabilities
    return np.log(p)


def setting(count: int = 400, shadows: int = 4, seed: int = 0) -> tuple[Any, ...]:
    """Samples of each their own difficulty, training and test alike, and shadows that answer by it, better on what they saw."""
    random = np.random.default_rng(seed)
    train_labels, test_labels = np.arange(count) % 3, np.arange(count) % 3
    hard = {"train": random.uniform(0.2, 0.95, count), "test": random.uniform(0.2, 0.95, count)}

    def answer(name: str, seen: np.ndarray) -> np.ndarray:
        noisy = np.clip(hard[name] + random.normal(0, 0.02, count), 0.01, 0.99)
        return np.where(seen, 1 - (1 - noisy) / 4, noisy)

    nobody = np.zeros(count, dtype=bool)
    witnesses = [
        Shadow(
            np.log(answer("train", half(count, number, seed))),
            np.log(answer("test", nobody)),
            half(count, number, seed),
            half(count, number, seed, "test"),
        )
        for number in range(shadows)
    ]
    split = SimpleNamespace(
        forget=np.flatnonzero(train_labels == 2),
        retain=np.flatnonzero(train_labels != 2),
        test_forget=np.flatnonzero(test_labels == 2),
    )
    return train_labels, test_labels, answer, witnesses, split, nobody


def audited(seen_forget: bool, shadows: int = 4) -> Any:
    train_labels, test_labels, answer, witnesses, split, nobody = setting(shadows=shadows)
    seen = ~nobody if seen_forget else train_labels != 2
    said = condense(logits(answer("train", seen), train_labels), logits(answer("test", nobody), test_labels), split.forget)
    return audit(said, train_labels, test_labels, split, witnesses)


@pytest.mark.parametrize("shadows", [2, 8])
def test_a_model_that_saw_the_forget_set_is_found_out_and_one_that_did_not_is_not(shadows: int) -> None:
    original, retrain = audited(True, shadows), audited(False, shadows)
    assert original.metrics["RMIA_AUC"] > 0.9
    assert 0.4 < retrain.metrics["RMIA_AUC"] < 0.6
    assert original.metrics["RMIA_TPR_1"] > 10 * max(retrain.metrics["RMIA_TPR_1"], 1)
    for found in (original, retrain):
        assert 0 <= found.metrics["RMIA_TPR_01"] <= found.metrics["RMIA_TPR_1"] <= 100
        assert len(found.forget) == len(found.test) == 133


def test_a_request_of_single_samples_is_compared_with_test_samples_of_their_classes() -> None:
    train_labels, test_labels, answer, witnesses, split, nobody = setting()
    some = SimpleNamespace(forget=split.forget[:5], retain=None, test_forget=np.array([], dtype=int))
    said = condense(logits(answer("train", nobody), train_labels), logits(answer("test", nobody), test_labels), some.forget)
    found = audit(said, train_labels, test_labels, some, witnesses)  # type: ignore[arg-type]
    assert len(found.forget) == 5
    assert len(found.test) == (test_labels == 2).sum()
    elsewhere = np.zeros_like(test_labels)
    nothing = audit(said, train_labels, elsewhere, some, witnesses)  # type: ignore[arg-type]
    assert all(math.isnan(value) for value in nothing.metrics.values())


def test_of_a_class_and_single_samples_together_like_is_compared_with_like() -> None:
    """Class 2 is lost (every answer near 0), of class 0 five samples go. To a model that saw none of them there is nothing to tell, whatever
    the shares of the classes in the two groups; one that still knows the five is found out by them."""
    train_labels, test_labels, answer, witnesses, split, nobody = setting(count=1200)
    single = np.flatnonzero(train_labels == 0)[:60]
    mixed = SimpleNamespace(forget=np.sort(np.concatenate([split.forget, single])), retain=None, test_forget=split.test_forget)
    lost = np.where(train_labels == 2, 0.001, 1.0), np.where(test_labels == 2, 0.001, 1.0)

    def audited(seen: np.ndarray) -> Any:
        train, test = answer("train", seen) * lost[0], answer("test", nobody) * lost[1]
        said = condense(logits(train, train_labels), logits(test, test_labels), mixed.forget)
        return audit(said, train_labels, test_labels, mixed, witnesses)  # type: ignore[arg-type]

    retrain = audited(np.isin(np.arange(1200), mixed.forget, invert=True))
    assert 0.45 < retrain.metrics["RMIA_AUC"] < 0.55
    assert len(retrain.test) == np.isin(test_labels, (0, 2)).sum()
    known = audited(train_labels != 2)
    assert known.metrics["RMIA_AUC"] > retrain.metrics["RMIA_AUC"] + 0.02
    assert known.metrics["RMIA_TPR_1"] > 2 * max(retrain.metrics["RMIA_TPR_1"], 1)


def test_finer_classes_are_compared_with_their_own() -> None:
    train_labels, test_labels, answer, witnesses, _, nobody = setting()
    finer = SimpleNamespace(forget=np.flatnonzero(np.arange(400) % 6 == 2), retain=None, test_forget=None)
    said = condense(logits(answer("train", nobody), train_labels), logits(answer("test", nobody), test_labels), finer.forget)
    found = audit(
        said,
        train_labels,
        test_labels,
        finer,
        witnesses,
        (np.arange(400) % 6, np.arange(400) % 6),  # type: ignore[arg-type]
    )
    assert (len(found.forget), len(found.test)) == (67, 67)
