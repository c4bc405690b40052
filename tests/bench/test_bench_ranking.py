from __future__ import annotations

import pytest
from bench_fixtures import mark

from megu.bench import ranking

MARKS = [
    mark("megu", "Bag", 0, MIA=16.0),
    mark("megu", "Bag", 1, MIA=8.0),
    mark("megu", "Coat", 0, Ar=87.0),
    mark("delete", "Bag", 0, MIA=10.6),
    mark("delete", "Bag", 1, error="NaN"),
    mark("delete", "Coat", 0, Af=30.0),
    mark("again", "Bag", 0, algorithm="retrain"),
]


def test_methods_are_ordered_by_their_mean_gap_and_the_retrain_is_none() -> None:
    """megu: 6/3, 3/3 and 3/3; delete: 0.6/3 and 30/3."""
    found = ranking.places(MARKS)
    assert [place.method for place in found] == ["megu", "delete"]
    assert [place.gap for place in found] == pytest.approx([4 / 3, 5.1])
    assert found[0].parts == pytest.approx({"Ar": 1.0, "Af": 0.0, "MIA": 3.0})
    assert found[0].most == "MIA"


def test_where_another_is_nearer_is_said() -> None:
    text = ranking.markdown(MARKS)
    assert "over all: **megu**, 1.33 points; then delete, 5.10." in text
    assert "| Bag | delete | 0.20 | 2 of 2 | 1.50 | MIA, 4.5 points off |" in text
    assert "| Coat | megu | 1.00 | 1 of 2 | 1.00 | Ar, 3.0 points off |" in text


def test_one_method_alone_is_not_ranked() -> None:
    assert ranking.markdown(MARKS[:3]) == ""


def test_swept_values_are_methods_of_their_own() -> None:
    swept = [mark("megu", swept=("unlearn.alpha", value), MIA=10 + value) for value in (0.5, 0.7)]
    assert [place.method for place in ranking.places(swept)] == ["megu unlearn.alpha=0.5", "megu unlearn.alpha=0.7"]
