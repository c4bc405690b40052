"""Many byte strings at once, anywhere in a buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from purge_fixtures import garments, patterns

from megu.erasure.search.patterns import SHORTEST, Strings


@given(offset=st.integers(0, 200), length=st.sampled_from([15, 16, 32, 784]), tail=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_string_is_found_wherever_it_lies(offset: int, length: int, tail: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    strings = rng.integers(0, 256, (5, length), dtype=np.uint8)
    buffer = np.r_[rng.integers(0, 256, offset, dtype=np.uint8), strings[3], rng.integers(0, 256, tail, dtype=np.uint8)]
    assert Strings(strings).find(buffer.tobytes()) == {3}


@given(place=st.integers(0, 783), seed=st.integers(0, 99))
def test_one_other_byte_is_another_string(place: int, seed: int) -> None:
    strings = np.random.default_rng(seed).integers(0, 256, (3, 784), dtype=np.uint8)
    changed = strings[1].copy()
    changed[place] ^= 1
    assert Strings(strings).find(changed.tobytes()) == set()


def test_a_cut_string_is_none_and_neither_is_an_empty_buffer() -> None:
    strings = np.random.default_rng(0).integers(0, 256, (2, 64), dtype=np.uint8)
    assert Strings(strings).find(strings[0].tobytes()[:-1]) == set()
    assert Strings(strings).find(b"") == set()
    assert Strings(strings[:0]).find(strings[0].tobytes()) == set()


def test_every_one_of_many_is_found_in_one_file() -> None:
    strings = np.random.default_rng(0).integers(0, 256, (300, 100), dtype=np.uint8)
    assert Strings(strings).find(b"x" + strings.tobytes()) == set(range(300))


def test_strings_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Strings(np.zeros((1, SHORTEST - 1), dtype=np.uint8))


def test_an_image_of_one_shade_is_counted_and_not_looked_for() -> None:
    images = garments(3)
    images[1] = 255
    found = patterns(images)
    assert found.flat == 1
    assert found.pixels_in(b"\xff" * 10_000) == set()
    assert found.pixels_in(images.tobytes()) == {0, 2}


def test_colours_are_found_channels_last_and_first() -> None:
    images = garments(4, channels=3)
    assert patterns(images).pixels_in(images[2].tobytes()) == {2}
    assert patterns(images).pixels_in(np.ascontiguousarray(images[2].transpose(2, 0, 1)).tobytes()) == {2}


def test_ids_are_found_in_text() -> None:
    found = patterns(garments(4))
    text = f'{{"forget.ids": ["{found.ids[1].decode()}", "{"0" * 32}"]}}'
    assert found.ids_in(text.encode()) == {1}
