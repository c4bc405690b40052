"""Which test images are set apart to calibrate by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.unlearning.labels.calibration_set import CalibrationParams, select


@pytest.mark.parametrize("share", [-0.1, 0.91, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        CalibrationParams(share=share)


def test_the_images_set_apart_by_hand() -> None:
    """Five of class 0, at 0, 2, 4, 6, 8: .4 of them are two, the 0th and the 5 // 2 = 2nd. Four of class 1: round(1.6) = 2, the 0th and 2nd."""
    groups = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    assert select(groups, 0.4).tolist() == [0, 1, 4, 5]


def test_no_share_and_no_images_set_none_apart() -> None:
    assert select(np.repeat([0, 1, 2], 7), 0.0).tolist() == []
    found = select(np.array([], dtype=np.int64), 0.5)
    assert found.tolist() == []
    assert found.dtype == np.int64


def test_the_only_image_of_a_class_is_measured() -> None:
    """Of one image none is set apart, of two at .9 one: round(1.8) = 2 would leave nothing to measure."""
    assert select(np.array([3, 5, 5]), 0.9).tolist() == [1]


GROUPS = hnp.arrays(np.int64, st.integers(1, 120), elements=st.integers(0, 5))


@given(GROUPS, st.floats(0, 0.9))
def test_of_each_group_the_share_is_set_apart_evenly_and_something_is_left(groups: np.ndarray, share: float) -> None:
    found = select(groups, share)
    assert (np.diff(found) > 0).all(), "ascending, and no image twice"
    for group in np.unique(groups):
        of_group = np.flatnonzero(groups == group)
        places = np.flatnonzero(np.isin(of_group, found))
        assert len(places) <= len(of_group) - 1
        assert len(places) == len(of_group) - 1 or abs(len(places) - share * len(of_group)) <= 0.5
        if len(places):
            gaps = np.diff([*places, len(of_group)])
            assert places[0] == 0
            assert gaps.max() - gaps.min() <= 1, "each stands for as many as the others, give or take one"


@given(GROUPS, st.floats(0, 0.9))
def test_what_is_set_apart_of_a_group_has_nothing_to_do_with_the_others(groups: np.ndarray, share: float) -> None:
    """What the labels are called, or which classes there are besides, changes nothing: so an erasure of one class keeps the others' set."""
    kept = groups != 0
    alone = np.flatnonzero(kept)[select(groups[kept] + 7, share)]
    assert alone.tolist() == [at for at in select(groups, share) if kept[at]]
