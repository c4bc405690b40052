"""The transition matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.core.errors import MeguError
from megu.unlearning.labels.replacing import SOURCES, replaced
from megu.unlearning.labels.transition import transition_matrix

#: Column k describes class k.
T = np.array(
    [
        [0.7, 0.1, 0.2, 0.0],
        [0.1, 0.6, 0.0, 0.1],
        [0.2, 0.2, 0.5, 0.3],
        [0.0, 0.1, 0.3, 0.6],
    ]
)
OVERLAP = np.array([[1.0, 0.5, -0.2, -0.9], [0.5, 1.0, 0.0, -0.1], [-0.2, 0.0, 1.0, 0.25], [-0.9, -0.1, 0.25, 1.0]])


def test_the_matrix_by_hand() -> None:
    """Rows of S divided by their sums, as columns."""
    found = transition_matrix(np.array([[2.0, 1.0, 1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.0, 0.5], [0.25, 0.75, 0.5], [0.25, 0.25, 0.0]])


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), -np.eye(2), np.full((2, 2), np.nan), np.array([[0.0, 0.0], [1.0, 1.0]])])
def test_what_is_no_similarity_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(MeguError):
        transition_matrix(wrong)


def test_the_other_sources_by_hand() -> None:
    assert (replaced("judged", T) == T).all()
    assert (replaced("none", T) == np.eye(4)).all()
    own, rest = (0.7, 0.6, 0.5, 0.6), (0.1, 0.4 / 3, 0.5 / 3, 0.4 / 3)
    np.testing.assert_allclose(
        replaced("uniform", T), [[own[k] if k == row else rest[k] for k in range(4)] for row in range(4)]
    )
    np.testing.assert_allclose(replaced("overlap", T, OVERLAP)[:, 1], [1 / 3, 2 / 3, 0, 0])
    np.testing.assert_allclose(replaced("overlap", T, OVERLAP)[:, 3], [0, 0, 0.2, 0.8])


@pytest.mark.parametrize(("forgotten", "nearest"), [((), [2, 2, 3, 2]), ((2,), [1, 0, 3, 1]), ((2, 3), [1, 0, 0, 1])])
def test_the_nearest_class_is_another_one_and_one_that_stays(forgotten: tuple[int, ...], nearest: list[int]) -> None:
    found = replaced("nearest", T, forgotten=forgotten)
    assert found.argmax(axis=0).tolist() == nearest
    assert (found.sum(axis=0) == 1).all()


def test_a_shuffled_matrix_is_another_one_for_another_seed() -> None:
    made = [replaced("shuffled", T, seed=seed) for seed in (0, 0, 1)]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()
    with pytest.raises(ValueError, match="overlap"):
        replaced("overlap", T)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, (6, 6), elements=st.floats(0.001, 1), unique=True),
    st.sets(st.integers(0, 5), max_size=4),
    st.integers(0, 2**31 - 1),
)
def test_what_every_source_is(similarity: np.ndarray, forgotten: set[int], seed: int) -> None:
    judged = transition_matrix(similarity)
    overlap = 2 * similarity - 1
    np.fill_diagonal(overlap, 1.0)
    for source in SOURCES:
        found = replaced(source, judged, overlap, sorted(forgotten), seed)
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(axis=0), 1)
    np.testing.assert_allclose(np.diag(replaced("uniform", judged)), np.diag(judged))
    shuffled = replaced("shuffled", judged, seed=seed)
    # The values tell which class is under which name: none is under its own.
    names = [int(np.flatnonzero(np.isclose(np.diag(judged), own, rtol=0, atol=0))[0]) for own in np.diag(shuffled)]
    assert sorted(names) == list(range(6))
    assert all(name != place for place, name in enumerate(names))
    np.testing.assert_array_equal(shuffled, judged[np.ix_(names, names)])


def test_of_one_class_there_is_nothing_to_replace() -> None:
    assert all((replaced(source, np.ones((1, 1)), np.ones((1, 1))) == 1).all() for source in SOURCES)
