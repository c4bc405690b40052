"""Held-out images of the forgotten classes, which take the place of a retrain."""

from __future__ import annotations

import numpy as np
import pytest

from megu.data.splits import ForgetSplit
from megu.evaluation import held_out
from megu.evaluation.condensed import condense

TRAIN, TEST = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 1, 1, 1, 2])


def split(forget: list[int], test_forget: list[int], classes: tuple[int, ...] = ()) -> ForgetSplit:
    def rest(count: int, gone: list[int]) -> np.ndarray:  # type: ignore[type-arg]
        return np.setdiff1d(np.arange(count), gone)

    return ForgetSplit(
        scenario="class" if classes else "ids",
        classes=classes,
        forget=np.array(forget),
        retain=rest(len(TRAIN), forget),
        test_forget=np.array(test_forget, dtype=int),
        test_retain=rest(len(TEST), test_forget),
    )


def answers(labels: np.ndarray, right: list[bool]) -> np.ndarray:  # type: ignore[type-arg]
    """Logits (N, 3) that name the label, or the next class."""
    named = np.where(right, labels, (labels + 1) % 3)
    return np.eye(3)[named] * 4.0


@pytest.mark.parametrize(
    ("forget", "images", "weights"),
    [
        ([0, 1, 2], [0, 1], [1 / 2, 1 / 2]),
        ([0, 1, 3], [0, 1, 2, 3, 4, 5], [1 / 3, 1 / 3, *[1 / 12] * 4]),
        ([5], [6], [1.0]),
    ],
)
def test_each_class_counts_as_among_the_forgotten(forget: list[int], images: list[int], weights: list[float]) -> None:
    chosen = held_out.choose(np.array(forget), TRAIN, TEST)
    assert chosen.images.tolist() == images
    assert chosen.weights.tolist() == pytest.approx(weights)
    assert 1 <= chosen.effective <= len(images)


def test_with_a_class_that_has_no_test_images_there_is_nothing_to_compare() -> None:
    chosen = held_out.choose(np.array([0, 5]), TRAIN, TEST[:-1])
    assert (len(chosen.images), chosen.effective) == (0, 0)
    assert (
        held_out.score(
            condense(answers(TRAIN, [True] * 8), answers(TEST, [True] * 7), np.array([0])), TEST, split([0], []), chosen
        )
        == {}
    )


@pytest.mark.parametrize(
    ("asked", "chance"),
    [
        (split([0, 1, 2], [0, 1], classes=(0,)), 100 / 3),
        (split([0], []), None),
        (split([0, 1, 2, 3], [0, 1, 2], classes=(0,)), None),
    ],
)
def test_chance_is_the_standard_of_whole_classes_only(asked: ForgetSplit, chance: float | None) -> None:
    found = held_out.counts(asked, held_out.choose(asked.forget, TRAIN, TEST), TEST, 3)
    assert (found["chance"], found["forgotten"]) == (chance, len(asked.forget))


def test_a_model_is_marked_on_the_held_out_images_by_weight() -> None:
    asked = split([0, 1, 3], [])
    test = answers(TEST, [True, False, True, True, True, True, True])
    said = condense(answers(TRAIN, [True] * 8), test, asked.forget)
    found = held_out.score(said, TEST, asked, held_out.choose(asked.forget, TRAIN, TEST))
    assert found["Af_held_out"] == pytest.approx(100 * (1 - 1 / 3))
    assert 0 <= found["MIA_held_out"] <= 100
    assert 0 < found["entropy_held_out"] < np.log(3)


def test_classes_are_measured_on_the_retained_test_images() -> None:
    found = held_out.per_class(answers(TEST, [True] * 5 + [False, True]), TEST, split([0, 1, 2], [0, 1], classes=(0,)), 3)
    assert found[1:] == [75.0, 100.0]
    assert np.isnan(found[0])
