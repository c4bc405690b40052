from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score, roc_curve

from megu.evaluation.attacks.roc import auc, tpr_at_fpr

# Few values, so that ties are common.
SCORES = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5).map(float))
RATES = st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.99, 1.0])


def test_the_area_by_hand() -> None:
    """Members 2 and 3, others 1 and 2: of four pairs three are won and one is a tie."""
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875


@pytest.mark.parametrize(
    ("fpr", "expected"),
    [
        (0.0, 0.25),  # above every other, 4: only 5
        (0.24, 0.25),  # of four others not one may be called
        (0.25, 0.25),  # 4 may; the next threshold is 3, and the members at 3 tie with an other
        (0.5, 0.25),  # the others at 3 are two, called together or not at all
        (0.75, 0.75),  # 4, 3 and 3 are called: both members at 3 with them
        (1.0, 1.0),
    ],
)
def test_the_rate_at_a_rate_by_hand_with_ties(fpr: float, expected: float) -> None:
    """Members 5 3 3 1; others 4 3 3 2."""
    assert tpr_at_fpr(np.array([5.0, 3, 3, 1]), np.array([4.0, 3, 3, 2]), fpr) == expected


@given(SCORES, SCORES)
def test_the_area_is_a_share_and_scikit_learns_and_turns_round(members: np.ndarray, others: np.ndarray) -> None:
    found = auc(members, others)
    assert 0 <= found <= 1
    assert auc(others, members) == pytest.approx(1 - found)
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    assert found == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])))


@given(SCORES, SCORES, RATES)
def test_only_the_order_of_the_scores_matters(members: np.ndarray, others: np.ndarray, fpr: float) -> None:
    def bent(values: np.ndarray) -> np.ndarray:
        return np.arctan(values) + values**3

    assert auc(bent(members), bent(others)) == auc(members, others)
    assert tpr_at_fpr(bent(members), bent(others), fpr) == tpr_at_fpr(members, others, fpr)


@given(SCORES, SCORES, RATES)
def test_the_rate_at_a_rate_is_the_highest_point_of_the_curve_there(
    members: np.ndarray, others: np.ndarray, fpr: float
) -> None:
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    false, true, _ = roc_curve(truth, np.concatenate([members, others]), drop_intermediate=False)
    assert tpr_at_fpr(members, others, fpr) == pytest.approx(true[false <= fpr + 1e-9].max())


def test_without_anyone_nothing_is_known() -> None:
    assert math.isnan(auc(np.array([]), np.array([1.0])))
    assert math.isnan(tpr_at_fpr(np.array([1.0]), np.array([]), 0.1))
