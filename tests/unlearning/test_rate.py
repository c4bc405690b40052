"""The search of the learning rate, on curves that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.training.loop import NotFinite
from megu.unlearning.methods.rate import MOST_TRIED, STEP, Tried, search

FIRST = 1e-3


def searched(loss: Callable[[int], float]) -> tuple[int, list[int], list[Tried]]:
    """The place that is found, those that were tried in their order, and what was said of them. ``loss`` is by place: 0 the first rate, 1
    a step up, -1 a step down; NaN is a model that answers NaN, infinity a training that fails."""
    places = []

    def attempt(lr: float) -> Tried:
        place = round(math.log(lr / FIRST, STEP))
        assert lr == pytest.approx(FIRST * STEP**place)
        places.append(place)
        if loss(place) == math.inf:
            raise NotFinite(f"the loss is inf at {lr}", "lower the learning rate")
        return Tried(lr, loss(place), 0.0)

    tried = search(attempt, FIRST)
    best = min(range(len(tried)), key=lambda number: tried[number].loss)
    return places[best], places, tried


def test_the_loss_is_both_distances() -> None:
    assert Tried(0.1, forget=0.25, retain=0.5).loss == 0.75


def test_it_goes_up_while_it_gets_better() -> None:
    """Best at two steps up: one more is tried to know it, and nothing below."""
    found, places, tried = searched(lambda place: abs(place - 2))
    assert (found, places) == (2, [0, 1, 2, 3])
    assert [entry.forget for entry in tried] == [2, 1, 0, 1]
    assert [entry.lr for entry in tried] == pytest.approx([0.001, 0.00316, 0.01, 0.0316], rel=0.01)


def test_it_goes_down_where_the_first_step_up_was_none() -> None:
    found, places, _ = searched(lambda place: abs(place + 2))
    assert (found, places) == (-2, [0, 1, -1, -2, -3])


def test_the_first_may_be_the_best() -> None:
    found, places, _ = searched(abs)
    assert (found, places) == (0, [0, 1, -1])


def test_of_two_that_are_alike_the_first_is_taken() -> None:
    found, places, _ = searched(lambda place: 1.0)
    assert (found, places) == (0, [0, 1, -1])


@pytest.mark.parametrize(("sign", "last"), [(-1, 5), (1, -4)])
def test_there_is_an_end_where_it_would_get_better_for_ever(sign: int, last: int) -> None:
    found, places, _ = searched(lambda place: sign * place)
    assert len(places) == MOST_TRIED
    assert found == last


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_a_rate_that_fails_is_none_and_a_lower_one_is_sought(lost: float) -> None:
    """All but those from the second step down on fail: the search goes on down to where it gets worse again."""
    found, places, tried = searched(lambda place: lost if place > -2 else abs(place + 3))
    assert (found, places) == (-3, [0, -1, -2, -3, -4])
    assert [entry.loss for entry in tried] == [math.inf, math.inf, 1, 0, 1]


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_a_step_up_that_fails_ends_the_way_up(lost: float) -> None:
    found, places, tried = searched(lambda place: lost if place > 1 else -place)
    assert (found, places) == (1, [0, 1, 2])
    assert tried[-1].loss == math.inf


def test_where_every_rate_fails_the_last_fault_is_said_and_no_more_are_tried_than_said() -> None:
    places = []

    def attempt(lr: float) -> Tried:
        places.append(lr)
        raise NotFinite(f"the loss is nan at {lr:.0e}", "lower the learning rate")

    with pytest.raises(NotFinite, match=f"the loss is nan at {FIRST / STEP ** (MOST_TRIED - 1):.0e}"):
        search(attempt, FIRST)
    assert len(places) == MOST_TRIED


def test_models_that_answer_no_number_are_an_error_with_what_to_do() -> None:
    with pytest.raises(NotFinite, match="no learning rate") as raised:
        searched(lambda place: math.nan)
    assert "set unlearn.lr" in str(raised.value)


def test_no_rate_above_what_a_user_may_set_is_tried() -> None:
    tried = search(lambda lr: Tried(lr, -lr, 0.0), 0.2)
    assert [entry.lr for entry in tried] == pytest.approx([0.2, 0.632], rel=0.01)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf, math.nan]), min_size=13, max_size=13))
def test_what_is_found_is_the_best_of_what_was_tried(losses: list[float]) -> None:
    """Whatever the curve: places -6 to 6. None of what was tried is better, none is tried twice, never more than said."""
    try:
        found, places, tried = searched(lambda place: losses[place + 6])
    except NotFinite:
        down = [losses[6 - step] for step in range(MOST_TRIED)]
        assert not any(map(math.isfinite, down))
        return
    assert len(set(places)) == len(places) == len(tried) <= MOST_TRIED
    assert losses[found + 6] == min(entry.loss for entry in tried)
    assert [entry.loss for entry in tried] == [
        losses[place + 6] if math.isfinite(losses[place + 6]) else math.inf for place in places
    ]
