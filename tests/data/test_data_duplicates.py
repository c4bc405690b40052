"""Images that are there more than once: which are, what is said of them, and what a request that includes them forgets."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from purge_fixtures import garments

from megu.core.errors import MeguError
from megu.data import splits
from megu.data.arrays import Dataset, coarse_view, save
from megu.data.images import duplicates
from megu.data.splits import ForgetParams, load_split, make_split, widened

#: Of each class six training and two test images, a class after the other.
CLASSES = ("ant", "bee", "cat")


def jpeg(image: Any) -> Any:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=90)
    return np.asarray(Image.open(content))


def through(size: int) -> Callable[[Any], Any]:
    """Brought to another size and back."""

    def changed(image: Any) -> Any:
        other = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(other.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC))

    return changed


COPIES: dict[str, Callable[[Any], Any]] = {
    "equal": lambda image: image,
    "jpeg": jpeg,
    "larger and back": through(64),
    "smaller and back": through(24),
    "less contrast": lambda image: (image * 0.8 + 20).astype(np.uint8),
}


def dataset(**planted: Any) -> Dataset:
    """planted: position in train ("t7") or test ("e1") -> an image there."""
    images, labels = garments(24, 3, size=32), np.repeat(np.arange(3), 6)
    train, test = images[:18].copy(), images[18:].copy()
    for at, image in planted.items():
        (train if at[0] == "t" else test)[int(at[1:])] = image
    coarse = ("insect", "insect", "mammal")
    return replace(Dataset.of((train, labels), (test, np.repeat(np.arange(3), 2)), CLASSES, name="beings"), coarse=coarse)


def image(at: int) -> Any:
    return dataset().train.images[at]


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_in_the_group_of_its_original_and_nothing_else_is(change: str) -> None:
    groups = duplicates.groups(dataset(t7=COPIES[change](image(2)), e1=COPIES[change](image(12))))
    assert groups[2] == groups[7] >= 0
    assert groups[12] == groups[19] >= 0
    assert np.flatnonzero(groups >= 0).tolist() == [2, 7, 12, 19]
    assert (duplicates.groups(dataset()) == -1).all()


def test_images_of_one_shade_are_copies_where_they_are_equal() -> None:
    grey = np.full((32, 32, 3), 90, dtype=np.uint8)
    groups = duplicates.groups(dataset(t0=grey, t1=grey + 1, e0=grey))
    assert np.flatnonzero(groups >= 0).tolist() == [0, 18]


@settings(max_examples=40)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_what_pairs_connect_is_one_group_of_the_smallest_number(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    own = list(range(count))
    for _ in range(count):
        for one, other in pairs:
            own[one] = own[other] = min(own[one], own[other])
    assert duplicates._joined(count, np.array(pairs, dtype=np.int64).reshape(-1, 2)).tolist() == own


def test_groups_in_both_splits_and_in_two_classes_are_told_with_names() -> None:
    found = dataset(t7=jpeg(image(2)), e1=jpeg(image(12)), t13=jpeg(image(12)), t3=image(1))
    groups = duplicates.groups(found)
    kinds = {kind: [places.tolist() for places in some] for kind, some in duplicates.in_kinds(found, groups).items()}
    assert sorted(kinds["in train and in test"]) == [[12, 13, 19]]
    assert sorted(kinds["in two classes"]) == [[2, 7], [12, 13, 19]]
    assert list(duplicates.duplicate_lines(found)) == [
        "1 image is almost the same in train and in test (train image 12 ~ train image 13 ~ test image 1)",
        "2 images are almost the same in two classes (" + "; ".join(
            {2: "train image 2 ~ train image 7", 12: "train image 12 ~ train image 13 ~ test image 1"}[at]
            for at in (places[0] for places in kinds["in two classes"])
        ) + ")",
    ]  # fmt: skip
    equal = dataset(t3=image(1), e0=image(0))
    assert list(duplicates.duplicate_lines(equal)) == [], "equal to the pixel: said elsewhere"


INCLUDE: dict[str, tuple[dict[str, Any], set[int]]] = {
    "class": ({"classes": ("ant",)}, set(range(6))),
    "subclass": ({"classes": ("ant",)}, set(range(6))),
    "ids": ({"classes": (), "ids": (2, 5)}, {2, 5}),
    "mixed": ({"classes": ("insect",), "ids": (12,)}, set(range(12)) | {12}),
}


@pytest.mark.parametrize("scenario", [*INCLUDE, "random"])
def test_a_request_that_includes_copies_forgets_them_too_and_none_stays(scenario: str) -> None:
    """The images 2 and 7 are copies, in two classes; 12, 15 and a test image are, in one."""
    plain = dataset(t7=jpeg(image(2)), t15=jpeg(image(12)), e5=jpeg(image(12)))
    data = plain if scenario in ("class", "ids", "random") else coarse_view(plain)
    asked, forgotten = INCLUDE.get(scenario, ({"count": 9}, set()))
    ids = tuple(data.train.ids[at].decode() for at in asked.get("ids", ()))
    shown = ForgetParams(**{"scenario": scenario, **asked, "ids": ids})  # type: ignore[arg-type]
    assert widened(data, shown, 0) == shown
    wide = widened(data, replace(shown, near_duplicates="include"), 0)
    groups = duplicates.groups(data)
    split, before = make_split(data, wide, 0), make_split(data, shown, 0)
    assert set(before.forget.tolist()) == (forgotten or set(before.forget.tolist()))
    more = {other for one, other in ((2, 7), (7, 2), (12, 15), (15, 12)) if one in before.forget and other not in before.forget}
    assert set(split.forget.tolist()) == set(before.forget.tolist()) | more
    assert len(duplicates.copies(groups, split.forget, split.retain)) == 0
    assert duplicates.copies(groups, before.forget, before.retain).tolist() == sorted(more)
    assert (split.test_forget.tolist(), wide.near_duplicates) == (before.test_forget.tolist(), "include")
    assert widened(data, wide, 0, groups) == wide, "nothing is left to include"


def test_nothing_to_include_changes_nothing_and_a_class_is_not_emptied() -> None:
    asked = ForgetParams(classes=("ant",), near_duplicates="include")
    assert widened(dataset(), asked, 0) == asked
    every = dataset(**{f"t{6 + at}": jpeg(image(at)) for at in range(6)})
    with pytest.raises(MeguError, match="leaves no training image of 'bee'"):
        make_split(every, widened(every, asked, 0), 0)


def test_the_stage_of_dvc_includes_them_as_a_run_does(tmp_path: Path) -> None:
    data = dataset(t7=jpeg(image(2)))
    parts = ((part.images, part.labels) for part in (data.train, data.test))
    stored = save(tmp_path / "data" / "beings", name="beings", classes=CLASSES, train=next(parts), test=next(parts))
    (tmp_path / "params.yaml").write_text("data: {name: beings}\nforget: {classes: [ant], near_duplicates: include}\n")
    splits.main(tmp_path)
    wide = widened(stored, ForgetParams(classes=("ant",), near_duplicates="include"), 0)
    assert load_split(tmp_path / "splits").forget.tolist() == make_split(stored, wide, 0).forget.tolist() == [*range(6), 7]
    with pytest.raises(ValueError, match="near_duplicates = 'hide'"):
        ForgetParams(near_duplicates="hide")  # type: ignore[arg-type]
