"""The picture of images that are almost the same: what it counts and shows, and that a purge finds it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from purge_fixtures import garments, patterns

from megu.data.arrays import Dataset
from megu.data.images.duplicates import groups
from megu.data.splits import ForgetParams, make_split
from megu.erasure.search.scan import Scanner
from megu.report import copies


def dataset(channels: int = 3) -> Dataset:
    """Images 0 and 4 are equal, of two classes; 2 is a test image too; two classes of four."""
    images = garments(12, channels, size=28)
    images[4], images[8] = images[0], images[2]
    return Dataset.of((images[:8], np.repeat([0, 1], 4)), (images[8:], np.array([0, 0, 1, 1])), ("ant", "bee"))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_kind_is_counted_and_shown(channels: int) -> None:
    data = dataset(channels)
    split = make_split(data, ForgetParams(classes=("ant",)), 0)
    kinds, counts = copies.found(data, groups(data), split)
    assert counts == {"retained": 1, "in train and in test": 1, "in two classes": 1}
    assert [kind.says for kind in kinds] == [
        "1 training image that stays is almost the same as forgotten ones",
        "1 image is in train and in test",
        "1 image is in two classes",
    ]
    assert [kind.names for kind in kinds] == [
        [("train: ant", "train: bee")],
        [("train: ant", "test: ant")],
        [("train: ant", "train: bee")],
    ]
    assert [kind.forgotten.tolist() for kind in kinds] == [[[True, False]], [[True, False]], [[True, False]]]
    if channels == 1:  # in colour it is drawn below
        drawn = Image.open(io.BytesIO(copies.draw(kinds)))
        assert drawn.size[0] > 2 * drawn.size[1]
    none = make_split(data, ForgetParams(scenario="ids", classes=(), ids=(data.train.ids[1].decode(),)), 0)
    assert copies.found(data, groups(data), none)[1]["retained"] == 0


def test_a_few_of_many_are_shown() -> None:
    images: Any = garments(20, 1)
    data = Dataset.of((np.concatenate([images, images]), np.repeat([0, 1], 20)), (garments(2, 1, seed=3), np.array([0, 1])))
    (kind, two), counts = copies.found(data, groups(data), make_split(data, ForgetParams(classes=("0",)), 0))
    assert (len(kind.images), counts["retained"], two.says) == (copies.SHOWN, 20, "20 images are in two classes")


def test_a_purge_finds_the_images_in_the_picture() -> None:
    data = dataset()
    kinds, _ = copies.found(data, groups(data), make_split(data, ForgetParams(classes=("ant",)), 0))
    found = Scanner(patterns(data.train.images[:1])).content(copies.draw(kinds))
    assert found.images
