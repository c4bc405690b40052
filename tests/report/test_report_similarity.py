"""The picture of a judgement, at every size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from megu.report.similarity import Judged, draw


def judged(count: int, *, abstained: int = 0) -> Judged:
    S = np.random.default_rng(0).random((count, count))
    silent = np.zeros(count, dtype=np.int64)
    silent[0] = abstained
    order = [[k for k in np.argsort(-row) if k != at][:3] for at, row in enumerate(S)]
    names = tuple(f"class $x_{k}$ <b>" for k in range(count))
    return Judged(names, S, silent, order, "a labeler", {"features": 0.5, "prototypes": None}, {"own": 0.9, "symmetry": None})


@pytest.mark.parametrize("count", [2, 10, 20, 100])
def test_it_is_drawn_wide_enough_to_read_and_the_same_each_time(count: int) -> None:
    first = draw(judged(count, abstained=3))
    assert first == draw(judged(count, abstained=3))
    picture = Image.open(io.BytesIO(first))
    assert picture.format == "PNG"
    assert picture.height >= 12 * count, "a row has at least twelve pixels"
    assert picture.width > picture.height


def test_abstentions_are_drawn_only_where_there_are_any() -> None:
    with_some, without = (Image.open(io.BytesIO(draw(judged(10, abstained=count)))) for count in (3, 0))
    assert with_some.width > without.width
