"""The transition matrix."""

from __future__ import annotations

import numpy as np
import pytest

from megu.errors import MeguError
from megu.transition import transition_matrix


def test_the_matrix_by_hand() -> None:
    """Rows of S divided by their sums, as columns."""
    found = transition_matrix(np.array([[2.0, 1.0, 1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.0, 0.5], [0.25, 0.75, 0.5], [0.25, 0.25, 0.0]])


@pytest.mark.parametrize("wrong", [np.ones((2, 3)), -np.eye(2), np.full((2, 2), np.nan), np.array([[0.0, 0.0], [1.0, 1.0]])])
def test_what_is_no_similarity_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(MeguError):
        transition_matrix(wrong)
