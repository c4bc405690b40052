"""A copy in another size or quality is near its original, and another image is not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from purge_fixtures import garments

from megu.data.images.near import NEAR, NearIndex, Strengths, strengths


def pictured(images: Any) -> list[Image.Image]:
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images]


def arrays_of(pictures: list[Image.Image]) -> Any:
    found = np.stack([np.asarray(picture) for picture in pictures])
    return found[..., None] if found.ndim == 3 else found


def recompressed(picture: Image.Image) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=90)
    return Image.open(content).convert(picture.mode)


CHANGES = {
    "jpeg of quality 90": recompressed,
    "half": lambda picture: picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR),
    "double": lambda picture: picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC),
    "double, then jpeg": lambda picture: recompressed(picture.resize((picture.width * 2, picture.height * 2))),
    "grey": lambda picture: picture.convert("L"),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_near_its_original_and_no_other(change: str, channels: int) -> None:
    images = garments(60, channels, size=32)
    copies = arrays_of([CHANGES[change](picture) for picture in pictured(images)])
    assert (NearIndex(strengths(images).hashes).find(strengths(copies)) == np.arange(60)).all()
    others = garments(300, channels, seed=7, size=32)
    assert (NearIndex(strengths(images).hashes).find(strengths(others)) == -1).all()


def test_an_image_of_one_shade_is_near_nothing() -> None:
    grey = np.full((3, 28, 28, 1), 90, dtype=np.uint8)
    grey[1, 3, 3] = 93
    assert not strengths(grey).usable.any()
    assert (NearIndex(strengths(garments(5)).hashes).find(strengths(grey)) == -1).all()
    assert (NearIndex(np.empty((0, 12), dtype=np.uint8)).find(strengths(garments(2))) == -1).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), turned=st.integers(0, 5))
def test_the_index_finds_what_comparing_with_every_hash_finds_where_weak_signs_differ(seed: int, turned: int) -> None:
    rng = np.random.default_rng(seed)
    stored = rng.normal(size=(50, 96)).astype(np.float32) * 100
    images = stored.copy()
    for row in images:
        weakest = np.argsort(np.abs(row))[:turned]
        row[weakest] *= -1
    there = np.packbits(stored >= 0, axis=1)
    apart = (np.abs(images) * ((images >= 0) != (stored >= 0))).sum(axis=1) / np.abs(images).sum(axis=1)
    assert (NearIndex(there).find(Strengths(images)) == np.where(apart <= NEAR, np.arange(50), -1)).all()
