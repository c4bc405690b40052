"""What a model that never saw a sample would say of it, read off held-out images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.evaluation import entropies, softmax
from megu.unlearning.labels.calibration import (
    PRIOR,
    Calibration,
    log_odds,
    lowered,
    probabilities,
    quantiles,
    ranks,
    share_of_own,
    struck_out,
    variety,
)


def test_log_odds_by_hand() -> None:
    """p = (.2, .3, .5): log(.2 / .8), log(.5 / .5) = 0."""
    logits = np.log([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(log_odds(logits, np.array([0, 2])), [math.log(0.25), 0.0], atol=1e-12)


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_log_odds_are_exact_where_the_probability_rounds_to_1_or_to_0(size: float) -> None:
    """Logits (a, 0, 0): the odds of the first are e^a / 2, of another 1 / (e^a + 1)."""
    logits = np.array([[size, 0.0, 0.0], [size, 0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(log_odds(logits, np.array([0, 1])), [size - math.log(2), -size], rtol=1e-12)


@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-10, 10)))
def test_log_odds_are_those_of_the_softmax(logits: np.ndarray) -> None:
    labels = np.array([0, 1, 2, 4])
    p = softmax(logits)[np.arange(4), labels]
    np.testing.assert_allclose(log_odds(logits, labels), np.log(p) - np.log1p(-p), rtol=1e-6, atol=1e-9)


def test_struck_out_by_hand() -> None:
    """p = (.2, .3, .5) without 0: (3/8, 5/8); without 0 and 1: 1 for the last; without any left: nothing."""
    logits = np.log([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(struck_out(logits, np.array([0])), [[0, 0.375, 0.625]], atol=1e-12)
    np.testing.assert_allclose(struck_out(logits, np.array([0]), (0, 1)), [[0, 0, 1]], atol=1e-12)
    assert struck_out(logits, np.array([0]), (1, 2)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_what_is_left_of_a_sure_answer_does_not_underflow(size: float) -> None:
    """(a, 0, log 3) without the first is (1/4, 3/4), however sure of the first the model is; likewise of a class that is forgotten."""
    logits = np.array([[size, 0.0, math.log(3)], [0.0, size, math.log(3)]])
    np.testing.assert_allclose(struck_out(logits, np.array([0, 1])), [[0, 0.25, 0.75], [0.25, 0, 0.75]], atol=1e-12)
    np.testing.assert_allclose(struck_out(logits[:1], np.array([1]), (0,)), [[0, 0, 1]], atol=1e-12)


@given(
    hnp.arrays(np.float32, (6, 5), elements=st.floats(-1e6, 1e6, width=32)),
    st.sets(st.integers(0, 4), max_size=5),
)
def test_a_row_has_what_is_left_and_sums_to_1_or_is_empty(logits: np.ndarray, forgotten: set[int]) -> None:
    labels, given_as = np.array([0, 1, 2, 3, 4, 0]), logits.copy()
    found = struck_out(logits, labels, sorted(forgotten))
    assert np.isfinite(found).all()
    assert (found[:, sorted(forgotten)] == 0).all()
    assert (found[np.arange(6), labels] == 0).all()
    left = np.array([len({*range(5)} - forgotten - {own}) for own in labels])
    np.testing.assert_allclose(found.sum(axis=1), left > 0, atol=1e-12)
    assert (logits == given_as).all(), "what was given is not changed"


def test_quantiles_weighted_by_hand() -> None:
    """Values 1, 2, 4 of weights 1, 2, 1: their middles are at 1/8, 1/2 and 7/8 of the whole; between them linear, beyond them the ends."""
    values, weights = np.array([4.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])
    levels = np.array([0.01, 1 / 8, 5 / 16, 1 / 2, 11 / 16, 7 / 8, 0.99])
    np.testing.assert_allclose(quantiles(values, weights, levels), [1, 1, 1.5, 2, 3, 4, 4])


def test_an_image_that_counts_for_nothing_changes_no_quantile() -> None:
    levels = np.array([0.1, 0.4, 0.9])
    plain = quantiles(np.array([1.0, 2.0]), np.ones(2), levels)
    np.testing.assert_allclose(quantiles(np.array([1.0, 2.0, 50.0]), np.array([1.0, 1.0, 0.0]), levels)[:2], plain[:2])


def test_ranks_by_hand() -> None:
    """Class 0 has 5, 3, 3 (ties by position): places 2, 0, 1 of three; class 7 has one: the middle."""
    found = ranks(np.array([5.0, 3.0, 9.0, 3.0]), np.array([0, 0, 7, 0]))
    np.testing.assert_allclose(found, [5 / 6, 1 / 6, 1 / 2, 3 / 6])


def calibration(
    entropies: list[float], odds: list[float], labels: list[int], train: tuple[list[float], list[int]] | None = None
) -> Calibration:
    """Whose answers all name the same class, so that nothing is said by the typical images."""
    known, classes = train or ([0.0], [0])
    answers = np.tile([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], (len(labels), 1))
    return Calibration(answers, np.array(entropies), np.array(odds), np.array(labels), np.array(known), np.array(classes))


def test_without_calibration_images_there_is_no_calibration() -> None:
    nothing = np.empty((0, 3)), np.empty(0, dtype=np.int64)
    assert Calibration.of(*nothing, np.zeros((2, 3)), np.array([0, 1])) is None


def test_what_a_calibration_is_made_of_by_hand() -> None:
    """p = (.2, .3, .5), class 0: without it (3/8, 5/8); with class 1 forgotten, too, one answer is left: no doubt at all."""
    logits, labels = np.log([[0.2, 0.3, 0.5]]), np.array([0])
    found, sure = (Calibration.of(logits, labels, logits, labels, forgotten) for forgotten in ((0,), (0, 1)))
    assert found is not None
    assert sure is not None
    assert found.entropies[0] == pytest.approx(-(0.375 * math.log(0.375) + 0.625 * math.log(0.625)))
    assert sure.entropies[0] == pytest.approx(0)
    assert found.odds[0] == found.train_odds[0] == pytest.approx(math.log(0.25))


def test_the_less_an_image_is_recognised_the_more_it_counts() -> None:
    """Two images of the class, of entropy 0 and 1. Equally known, the median is in the middle; where the first is known, the second rules."""
    even = calibration([0.0, 1.0], [0.0, 0.0], [4, 4])
    assert even.unseen(np.array([4]), np.array([0.5]))[0] == pytest.approx(0.5)
    one_known = calibration([0.0, 1.0], [20.0, -20.0], [4, 4])
    assert one_known.unseen(np.array([4]), np.array([0.5]))[0] > 0.99


def test_what_the_others_count_by_hand() -> None:
    """40 images of the class, of entropy 1, and as many of another, of entropy 0, known alike: 40 against the prior's 10, so a fifth of the
    distribution is the others'. With the images of the class alone all is theirs, without any all the others'."""
    both = calibration([1.0] * 40 + [0.0] * 40, [0.0] * 80, [0] * 40 + [1] * 40)
    share = PRIOR / (PRIOR + 40)
    levels = np.array([share - 0.02, share + 0.03])
    assert both.unseen(np.zeros(2, dtype=int), levels).tolist() == [0.0, 1.0]
    alone = calibration([1.0] * 40, [0.0] * 40, [0] * 40)
    assert alone.unseen(np.zeros(2, dtype=int), np.array([0.01, 0.99])).tolist() == [1.0, 1.0]
    none = calibration([0.0] * 40, [0.0] * 40, [1] * 40)
    assert none.unseen(np.zeros(2, dtype=int), np.array([0.01, 0.99])).tolist() == [0.0, 0.0]


def test_variety_by_hand() -> None:
    """Two answers, each sure of another class: as varied as can be; of the same: not at all. Three to one of three classes named."""
    one, other = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    assert variety(np.array([one, other]), np.ones(2)) == pytest.approx(1)
    assert variety(np.array([one, one]), np.ones(2)) == 0
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert variety(np.array([one, other]), np.array([3.0, 1.0])) == pytest.approx(expected)


def test_a_class_whose_odd_images_look_like_each_another_is_read_off_its_typical_ones() -> None:
    """Four well-known images of entropy log 2, and four unknown ones of entropy 0: of four classes, or all of one."""
    labels, odds = np.zeros(8, dtype=int), np.array([9.0] * 4 + [-9.0] * 4)
    typical = [[0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.0, 0.0, 0.5]]
    for own, median in ((np.eye(5)[1:], math.log(2) / 2), (np.eye(5)[[1, 1, 1, 1]], 0.0)):
        answers = np.concatenate([typical, own])
        found = Calibration(answers, entropies(answers), odds, labels, np.zeros(1), np.zeros(1, dtype=int))
        assert found.unseen(np.zeros(1, dtype=int), np.array([0.5]))[0] == pytest.approx(median, abs=0.01)


def test_the_more_the_unrecognised_images_differ_the_less_they_are_singled_out() -> None:
    """Two images that the original takes for two classes, with 1 - p = 1, and many that it half recognises, all of the first: a weight of
    2^-a each, where a is .6 without variety."""
    answers = np.eye(3)[[1, 2, *[1] * 8]]
    entropies, odds, labels = np.array([0.0, 0.0, *[1.0] * 8]), np.array([-50.0, -50.0, *[0.0] * 8]), np.zeros(10, dtype=int)
    weights = np.array([1.0, 1.0, *[0.5**0.6] * 8])
    power = 0.6 * (1 - variety(answers, weights) ** 4)
    found = Calibration(answers, entropies, odds, labels, np.zeros(1), np.zeros(1, dtype=int))
    levels = np.linspace(0.05, 0.95, 19)
    expected = quantiles(entropies, np.array([1.0, 1.0, *[0.5**power] * 8]), levels)
    np.testing.assert_allclose(found.unseen(np.zeros(19, dtype=int), levels), expected, atol=1e-9)
    assert 0.4 < power < 0.59


@settings(max_examples=60)
@given(
    hnp.arrays(np.float64, 30, elements=st.floats(0, 3)),
    hnp.arrays(np.float64, 30, elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.int64, 30, elements=st.integers(0, 3)),
)
def test_a_later_rank_is_never_surer_and_none_is_less_sure_than_what_was_seen(
    entropies: np.ndarray, odds: np.ndarray, labels: np.ndarray
) -> None:
    """However sure the original is of its calibration images, up to odds that overflow: weights of nothing but 0 give no NaN."""
    found = calibration(entropies.tolist(), odds.tolist(), labels.tolist())
    for own in range(4):
        values = found.unseen(np.full(9, own), np.linspace(0.05, 0.95, 9))
        assert (np.diff(values) >= -1e-12).all()
        assert 0 <= values.min() <= values.max() <= entropies.max() + 1e-12


def test_each_class_is_read_off_its_own_images() -> None:
    """Images of class 0 have entropy 1, of class 1 entropy 2, 100 each: the median of a class is its own."""
    found = calibration([1.0] * 100 + [2.0] * 100, [0.0] * 200, [0] * 100 + [1] * 100)
    assert found.unseen(np.array([1, 0, 1]), np.full(3, 0.5)).tolist() == [2.0, 1.0, 2.0]


def test_held_out_odds_map_ranks_by_hand() -> None:
    """Training images of odds 10, 20, 30 rank 1/6, 1/2, 5/6; held-out ones of -1, 0, 1 have their middles there: 10 -> -1, 20 -> 0, 30 -> 1.
    One between 20 and 30 ranks 2/3, half way from 0 to 1."""
    found = calibration([0.0] * 3, [-1.0, 0.0, 1.0], [0, 0, 0], ([30.0, 10.0, 20.0], [0, 0, 0]))
    np.testing.assert_allclose(found.held_out_odds(np.zeros(4, dtype=int), np.array([10.0, 20.0, 30.0, 25.0])), [-1, 0, 1, 0.5])


def test_held_out_odds_are_of_the_class_and_where_it_has_none_of_all() -> None:
    train = ([5.0, 5.0], [0, 1])
    found = calibration([0.0] * 2, [-3.0, -1.0], [0, 0], train)
    np.testing.assert_allclose(found.held_out_odds(np.array([0, 1]), np.array([5.0, 5.0])), [-2, -2])
    apart = calibration([0.0] * 2, [-3.0, -1.0], [0, 1], train)
    np.testing.assert_allclose(apart.held_out_odds(np.array([1, 0]), np.array([5.0, 5.0])), [-1, -3])


@given(
    hnp.arrays(np.float64, 12, elements=st.floats(-50, 50)),
    hnp.arrays(np.float64, 8, elements=st.floats(-50, 50)),
)
def test_who_is_better_known_as_a_training_image_is_so_as_a_held_out_one(known: np.ndarray, held: np.ndarray) -> None:
    found = calibration([0.0] * 8, held.tolist(), [0] * 8, (known.tolist(), [0] * 12))
    mapped = found.held_out_odds(np.zeros(12, dtype=int), np.sort(known))
    assert (np.diff(mapped) >= -1e-9).all()
    assert held.min() - 1e-9 <= mapped.min() <= mapped.max() <= held.max() + 1e-9


def test_the_probabilities_of_a_sub_class_are_lowered_to_its_likeness_by_hand() -> None:
    """Two of one, at odds of 3, to a quarter: odds of 1/3 each. One that is no surer than it looks like stays, as one without does."""
    odds, like = np.log([3.0, 3.0, 0.25, 9.0]), np.array([0.25, 0.25, 0.5, np.nan])
    np.testing.assert_allclose(lowered(odds, like), [0.25, 0.25, 0.2, 0.9], atol=1e-9)


@given(hnp.arrays(np.float64, 6, elements=st.floats(-40, 40)), st.floats(0, 1))
def test_lowering_keeps_the_order_and_never_raises(odds: np.ndarray, share: float) -> None:
    before, found = probabilities(odds), lowered(odds, np.full(6, share))
    assert (found <= before + 1e-12).all()
    assert (np.diff(found[np.argsort(odds)]) >= 0).all()
    assert found.mean() <= share + 1e-9 or found.mean() == pytest.approx(before.mean())
    assert found.mean() == pytest.approx(min(share, before.mean()), abs=1e-6)


def test_the_share_of_the_own_class_by_hand() -> None:
    """.3 of .3 + .5 + .2; without the third .3 of .8; of nothing, nothing."""
    assert share_of_own(np.array([0.3, 0.5, 0.2]), 0) == pytest.approx(0.3)
    assert share_of_own(np.array([0.3, 0.5, 0.2]), 0, [2]) == pytest.approx(0.375)
    assert share_of_own(np.array([0.3, 0.5, 0.2]), 2, [2]) == 0
    assert share_of_own(np.zeros(3), 1) == 0
