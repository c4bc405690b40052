"""Which questions are asked, how many, and what their answers come to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.labeling.agreement import off_diagonal, rank_correlation, symmetry
from megu.labeling.ollama import strategies

NAN = float("nan")


def test_a_hundred_classes_cost_what_the_documentation_says() -> None:
    asked = {name: strategies.calls(name, 100, 10, 10, 20) for name in ("pairwise", "ranked", "screened")}
    assert asked == {"pairwise": 100_020, "ranked": 1_060, "screened": 11_000}


def test_screening_has_nothing_to_leave_out_when_every_class_is_a_candidate() -> None:
    assert strategies.calls("screened", 10, 10, 10, 20) == strategies.calls("pairwise", 10, 10, 10, 20) == 1_010


def test_a_ranked_answer_scores_by_place() -> None:
    np.testing.assert_allclose(strategies.borda([2, 0], 4, 3), [0.5, 0, 0.75, 0])


def test_an_abstention_is_no_score_and_counts_in_no_mean() -> None:
    rows = strategies.ranked_scores({0: [1], 1: None, 2: [0], 3: [0]}, 2, 2, 1)
    np.testing.assert_array_equal(rows, [[0, 0.5], [NAN, NAN], [0.5, 0], [0.5, 0]])
    np.testing.assert_array_equal(strategies.class_means(rows, 2), [[0, 0.5], [0.5, 0]])


def test_candidates_are_the_class_itself_and_the_most_plausible_others() -> None:
    scores = np.array([[0, 0.2, 0.9, 0], [0.5, 0, 0, 0], [0, 0, 0, 0], [0.1, 0, 0, 0]])
    # 0: named 2, then 1; 3 named it. 2: named by 0 alone. 1 and 3 never met.
    assert strategies.chosen_candidates(scores, 3) == [[0, 2, 1], [1, 0], [2, 0], [3, 0]]
    assert strategies.chosen_candidates(scores, 4)[0] == [0, 2, 1, 3]


def test_a_small_budget_leaves_out_the_least_plausible_pairs() -> None:
    candidates = [[0, 1, 2], [1, 0], [2, 0]]
    every = strategies.screened_pairs(candidates, 2, 100)
    assert len(every) == 14
    assert len(set(every)) == 14
    assert strategies.screened_pairs(candidates, 2, 12) == every[:12]
    assert set(every[12:]) == {(0, 2), (1, 2)}, "class 0's last candidate"
    assert {(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)} <= set(every[:6]), "a class itself comes first"


@given(st.integers(2, 12), st.integers(1, 5), st.integers(2, 12), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_screened_never_asks_more_than_it_says(classes: int, n: int, m: int, sample: int, seed: int) -> None:
    if not strategies.screens(classes, m):
        return
    scores = np.random.default_rng(seed).random((classes, classes))
    again = strategies.repeats(classes, n, sample)
    pairs = strategies.screened_pairs(strategies.chosen_candidates(scores, m), n, classes * n * m - again)
    assert classes * n + len(pairs) + again <= max(strategies.calls("screened", classes, n, m, sample), classes * n + again)


def test_the_tail_keeps_its_order_below_every_candidate() -> None:
    q = np.array([[0.9, 0.4, NAN, NAN]])
    ranked = np.array([[0, 1.0, 0.75, 0.5]])
    # One class of interest: rows of the other three are not looked at.
    whole = np.vstack([q, np.full((3, 4), NAN)])
    filled = strategies.with_tail(whole, np.vstack([ranked, np.full((3, 4), NAN)]), [[0, 1], [1], [2], [3]], 1)
    np.testing.assert_allclose(filled[0], [0.9, 0.4, 0.3, 0.2])
    assert np.isnan(filled[1:]).all(), "who said nothing says nothing about the tail"


def test_own_class_is_never_a_choice_of_a_ranked_question_and_counts_as_itself() -> None:
    q = strategies.ranked_q(np.array([[0, 0.5], [NAN, NAN], [1, 0], [0.5, 0]]), 2)
    np.testing.assert_array_equal(q, [[1, 0.5], [NAN, NAN], [1, 1], [0.5, 1]])


def test_spread_takes_evenly_and_never_twice() -> None:
    assert strategies.spread(range(10), 4) == [0, 3, 6, 9]
    assert strategies.spread(range(3), 10) == [0, 1, 2]


# --- agreement -------------------------------------------------------------------------------------------------------------------


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([10, 20, 30, 400])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == pytest.approx(-1)
    # d = (1, -1, 0, 0): 1 - 6·2 / (4·15)
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([2, 1, 3, 4])) == pytest.approx(0.8)
    # Equal values share the mean of their ranks: 3.5, 1, 3.5, 2 against 4, 1, 3, 2.
    assert rank_correlation(np.array([3, 1, 3, 2]), np.array([4, 1, 3, 2])) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert rank_correlation(np.array([1, 1, 1]), np.array([1, 2, 3])) is None
    assert rank_correlation(np.array([1, 2]), np.array([1, 2])) is None


def test_symmetry_of_a_symmetric_matrix_is_one_and_its_diagonal_does_not_matter() -> None:
    matrix = np.array([[9.0, 1, 2], [1, 0, 3], [2, 3, 5]])
    assert symmetry(matrix) == pytest.approx(1)
    assert symmetry(np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])) == pytest.approx(-1)
    assert symmetry(np.eye(2)) is None
    np.testing.assert_array_equal(off_diagonal(matrix), [1, 2, 1, 3, 2, 3])
