from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from megu.evaluation.attacks.entropy import logistic, members_called, svm

CASES = ("overlapping", "apart", "skewed", "equal")


def populations(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entropies of members, of others, and of those who are asked about."""
    random = np.random.default_rng(0)
    members = random.gamma(0.4, 0.2, 900)
    others = {
        "overlapping": random.gamma(0.5, 0.4, 200),
        "apart": 3 + random.gamma(0.5, 0.1, 200),
        "skewed": random.gamma(0.4, 0.2, 7),
        "equal": members[:100],
    }[case]
    return members, others, random.gamma(0.6, 0.3, 500)


def labelled(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([members, others])[:, None], np.concatenate([np.ones(len(members)), np.zeros(len(others))])


@pytest.mark.parametrize("case", CASES)
def test_the_attack_is_scikit_learns(case: str) -> None:
    members, others, asked = populations(case)
    theirs = LogisticRegression(class_weight="balanced", C=1.0, tol=1e-10, max_iter=10_000).fit(*labelled(members, others))
    weight, bias = logistic(members, others)
    assert weight == pytest.approx(theirs.coef_[0, 0], rel=1e-3, abs=1e-4)
    assert bias == pytest.approx(theirs.intercept_[0], rel=1e-3, abs=1e-4)
    assert members_called(members, others, asked) == pytest.approx(100 * theirs.predict(asked[:, None]).mean(), abs=0.21)


@pytest.mark.parametrize("case", CASES)
def test_the_machine_is_scikit_learns(case: str) -> None:
    members, others, asked = populations(case)
    theirs = LinearSVC(class_weight="balanced", C=1.0, dual=False, tol=1e-12, max_iter=100_000).fit(*labelled(members, others))
    weight, bias = svm(members, others)
    assert weight == pytest.approx(theirs.coef_[0, 0], rel=1e-3, abs=1e-4)
    assert bias == pytest.approx(theirs.intercept_[0], rel=1e-3, abs=1e-4)
    assert members_called(members, others, asked, svm) == pytest.approx(100 * theirs.predict(asked[:, None]).mean(), abs=0.21)


def test_the_machine_by_hand() -> None:
    """One member at -1 and one other at 1: the bias is 0 by symmetry; w minimises w^2/2 + 2 (1 + w)^2, so w = -4/5."""
    assert svm(np.array([-1.0]), np.array([1.0])) == pytest.approx((-0.8, 0))


@pytest.mark.parametrize("fit", [logistic, svm])
def test_an_attack_without_members_is_refused(fit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="members"):
        fit(np.array([]), np.array([1.0]))


@pytest.mark.parametrize("fit", [logistic, svm])
def test_the_rare_side_counts_as_much_as_the_common_one(fit) -> None:  # type: ignore[no-untyped-def]
    """Balanced: each non-member ten times changes nothing but the strength of the penalty."""
    members, others, _ = populations("overlapping")
    once, often = fit(members, others), fit(members, np.repeat(others, 10))
    assert -once[1] / once[0] == pytest.approx(-often[1] / often[0], rel=0.02)
