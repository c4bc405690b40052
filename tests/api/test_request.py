"""What is to be forgotten, said in a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_fixtures import CLASSES, toy

import megu
from megu.core.errors import MeguError
from megu.data.arrays import coarse_view

SCENARIOS: dict[str, tuple[bool, dict[str, Any]]] = {
    "class": (False, {"classes": ["Sneaker"]}),
    "subclass": (True, {"subclasses": ["Sneaker"]}),
    "random": (False, {"count": 4}),
    "ids": (False, {"ids": [toy().train.ids[3].decode()]}),
    "mixed": (True, {"classes": ["tops"], "ids": [toy().train.ids[0].decode()]}),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_way_of_saying_it(scenario: str) -> None:
    coarse, named = SCENARIOS[scenario]
    data = coarse_view(toy()) if coarse else toy()
    split = megu.forget(data, **named)
    assert split.positions.scenario == scenario
    whole = np.sort(np.concatenate([split.forget.positions, split.retain.positions]))
    assert np.array_equal(whole, np.arange(len(data.train)))
    wanted = {"class": 10, "subclass": 10, "random": 4, "ids": 1, "mixed": 11}[scenario]
    assert (len(split.forget), len(split.forget.images), len(split.forget.labels)) == (wanted,) * 3


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "name classes"),
        ({"classes": "Sneaker"}, r"give classes=\['Sneaker'\]"),
        ({"classes": ["Sneaker"], "count": 3}, "or else a count"),
        ({"count": -1}, "or else a count"),
        ({"classes": ["Sneakers"]}, "did you mean 'Sneaker'"),
        ({"classes": list(CLASSES)}, "leave something to retain"),
    ],
)
def test_what_cannot_be_is_refused(named: dict[str, Any], said: str) -> None:
    with pytest.raises(MeguError, match=said):
        megu.forget(toy(), **named)


IMAGES, LABELS = np.zeros((4, 3, 3, 1), dtype=np.uint8), np.array([0, 1, 0, 1])


def test_a_data_set_of_arrays_is_normalised_by_its_training_images_and_names_its_classes() -> None:
    grey = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)
    data = megu.Dataset.of((grey, LABELS), (grey[:2], LABELS[:2]))
    assert (data.classes, data.channels, data.image_size) == (("0", "1"), 1, (3, 3))
    assert data.mean == (round(float(grey.mean()) / 255, 4),)
    assert data.std == (round(float(grey.std()) / 255, 4),)
    assert megu.Dataset.of((grey, LABELS), (grey, LABELS), ["a", "b"], mean=(0.5,), std=(0.25,)).mean == (0.5,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": (IMAGES.astype(float), LABELS)}, "train images are float64"),
        ({"test": (IMAGES[0, :, :, 0], LABELS)}, "test images are uint8"),
        ({"train": (IMAGES, LABELS[:3])}, "give 4 integers"),
        ({"train": (IMAGES, LABELS - 1)}, "integers from 0 up"),
        ({"test": (IMAGES[:, :2], LABELS)}, r"test images \(2, 3, 1\)"),
        ({"classes": ["one"]}, "label 1 is beyond the 1 names"),
        ({"mean": (0.5, 0.5)}, "one a channel"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(MeguError, match=said):
        megu.Dataset.of(**{"train": (IMAGES, LABELS), "test": (IMAGES, LABELS), **changed})
