"""A distribution made as sure as is wanted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.unlearning.labels import perturbing
from megu.unlearning.labels.sharpness import MOST, entropies, fitting_exponents, sharpened


def test_sharpening_keeps_zeros_and_the_order() -> None:
    row = torch.tensor([[0.0, 0.2, 0.3, 0.5]], dtype=torch.float64)
    squared = sharpened(row.log(), torch.tensor([2.0], dtype=torch.float64))
    np.testing.assert_allclose(squared, [[0, 0.04 / 0.38, 0.09 / 0.38, 0.25 / 0.38]])
    np.testing.assert_allclose(sharpened(row.log(), torch.ones(1)), row)


def test_entropies_by_hand() -> None:
    """One class alone, two alike, and four."""
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(entropies(rows), [0, math.log(2), math.log(4)], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(
    weights=hnp.arrays(np.float64, (4, 5), elements=st.floats(0.01, 1)),
    wanted=hnp.arrays(np.float64, 4, elements=st.floats(0.2, 1.5)),
)
def test_each_row_is_given_the_entropy_that_is_wanted_of_it(
    weights: np.ndarray, wanted: np.ndarray, dtype: torch.dtype
) -> None:
    """All within reach: the two largest entries differ, so that there is one below them all."""
    weights[:, 0] = 1.5
    rows = torch.from_numpy(weights / weights.sum(axis=1, keepdims=True)).to(dtype).log()
    found = sharpened(rows, fitting_exponents(rows, torch.from_numpy(wanted).to(dtype)))
    np.testing.assert_allclose(entropies(found), wanted, atol=1e-3)
    assert (found.argmax(dim=1) == 0).all()


def test_an_entropy_out_of_reach_gives_the_nearest_exponent() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(5), size=2)).log()
    found = fitting_exponents(rows, torch.tensor([-1.0, 99.0], dtype=torch.float64))
    np.testing.assert_allclose(found, [MOST, 1 / MOST], rtol=1e-4)


def test_a_row_with_one_class_alone_stays_as_it_is() -> None:
    row = torch.tensor([[-math.inf, 0.0, -math.inf]])
    assert sharpened(row, fitting_exponents(row, torch.tensor([0.7]))).tolist() == [[0, 1, 0]]


def test_the_configuration_knows_the_sharpest_exponent() -> None:
    """It says it again, so that a configuration is read without torch."""
    assert perturbing.MOST == MOST
