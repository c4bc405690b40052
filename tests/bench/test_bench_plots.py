"""The figures: there when there is something to draw, the same for the same numbers, and legible for twelve methods."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from bench_fixtures import mark
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.bench import plots
from megu.unlearning.methods import METHODS

TWELVE = [
    mark(name, target, seed, Ar=80.0 + at + seed, time_share=3.0 * (at + 1))
    for at, name in enumerate(METHODS)
    for target in ("Bag", "Coat")
    for seed in (0, 1)
]
SWEPT = [mark("megu", swept=("noise.lam", value), Ar=80 + value) for value in (0.1, 1.0, 10.0)]


def test_the_two_plots_people_draw() -> None:
    found = plots.draw(TWELVE)
    assert list(found) == ["retain-forget", "gap-time"]
    assert all(picture.startswith(b"\x89PNG") for picture in found.values())
    assert found == plots.draw(TWELVE), "the same numbers give the same bytes"


def test_an_interval_that_leaves_the_picture_is_said_to_go_on() -> None:
    def arrows(*values: float) -> tuple[int, bool]:
        axes = plots.gap_time([mark("ssd", seed=seed, Ar=value, time_share=9.0) for seed, value in enumerate(values)]).axes[0]
        said = any("goes on above" in text.get_text() for text in axes.texts)
        return sum(not drawn.get_clip_on() for drawn in axes.collections), said

    assert arrows(30.0, 80.0) == (1, True)
    assert arrows(79.9, 80.0, 80.1) == (0, False)


def test_an_original_that_knew_nothing_is_in_the_band_with_those_that_forgot_all() -> None:
    def place(af: float) -> float:
        one = replace(mark("ssd"), original={"Af": af, "Ar": 10.0}, reference={"Af": 0.0, "Ar": 9.0})
        drawn = plots.retain_forget([one]).axes[0].collections
        return next(float(x) for entry in drawn for x, y in np.asarray(entry.get_offsets()) if y == 10.0)

    assert -0.5 < place(0.0) < 0
    assert place(30.0) == 30.0


def test_a_sweep_has_its_curves_alone() -> None:
    assert list(plots.draw(SWEPT)) == ["sweep"]
    words = [mark("megu", swept=("perturbing.label", value)) for value in ("rank", "soft")]
    assert plots.draw([*SWEPT, *words])["sweep"] != plots.draw(SWEPT)["sweep"]


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert plots.draw([]) == {}
    assert plots.draw([mark("ssd", error="NaN")]) == {}
    assert list(plots.draw([mark("ssd", time_share=None)])) == ["retain-forget"]
    assert list(plots.draw([mark("ssd"), mark("scrub", error="NaN")])) == ["retain-forget", "gap-time"]


def test_no_two_methods_look_alike() -> None:
    assert len(set(plots.styles([f"method {number}" for number in range(24)]).values())) == 24


def boxes(places: np.ndarray, sizes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(place - size / 2, place + size / 2) for place, size in zip(places, sizes, strict=True)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(100, 900), st.integers(60, 540)), min_size=1, max_size=14))
def test_labels_overlap_no_other_however_near_their_points(where: list[tuple[int, int]]) -> None:
    points = np.array(where, dtype=float)
    sizes = np.tile([90.0, 16.0], (len(points), 1))
    found = boxes(plots.label_positions(points, sizes, (0, 0, 1000, 600)), sizes)
    for one, other in itertools.combinations(found, 2):
        assert plots.overlap(*one, *other) < 1
    for low, high in found:
        assert (low >= -1).all()
        assert (high <= [1001, 601]).all()


@pytest.mark.parametrize(("at", "area"), [((0, 0), 4.0), ((1, 1), 1.0), ((2, 0), 0.0), ((5, 5), 0.0)])
def test_the_area_two_boxes_share(at: tuple[int, int], area: float) -> None:
    low = np.array(at, dtype=float)
    assert plots.overlap(np.zeros(2), np.full(2, 2.0), low, low + 2) == area
