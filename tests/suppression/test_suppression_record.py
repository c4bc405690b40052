"""What a list is worth without its key: nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purge_fixtures import garments
from suppression_fixtures import KEY, OTHER, record

from megu.core.errors import MeguError
from megu.data.arrays import image_ids
from megu.data.images import near
from megu.lineage.commitments import commit
from megu.suppression import SuppressionList
from megu.suppression.record import parse

IMAGES = garments(20, 3, size=32)


def test_what_was_written_is_read_and_a_list_is_records_one_after_the_other() -> None:
    one, two = record(IMAGES), record(IMAGES[:3], data="others")
    assert parse(one.to_bytes() + two.to_bytes(), "list") == [one, two]
    commitments, hashes = one.opened(KEY)
    assert commitments == sorted(commit(KEY, bytes(value)) for value in image_ids(IMAGES))
    assert (hashes == np.unique(near.strengths(IMAGES).hashes, axis=0)).all()


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_changed_bit_is_believed(place: int, bit: int) -> None:
    content = bytearray(record(IMAGES[:4]).to_bytes())
    content[place % len(content)] ^= 1 << bit
    with pytest.raises(MeguError):
        SuppressionList(parse(bytes(content), "list"), KEY)


@pytest.mark.parametrize("cut", [1, 40, 600])
def test_a_cut_list_is_said_to_be(cut: int) -> None:
    with pytest.raises(MeguError, match="cut off"):
        parse(record(IMAGES).to_bytes()[:-cut], "list")


def test_a_newer_format_is_said_to_be() -> None:
    with pytest.raises(MeguError, match="use the newer megu"):
        parse(record(IMAGES).to_bytes().replace(b'"format":1', b'"format":2'), "list")


def test_a_wrong_key_opens_nothing_even_with_the_right_fingerprint() -> None:
    found = record(IMAGES)
    with pytest.raises(MeguError, match="does not open"):
        SuppressionList([found], OTHER)
    claimed = replace(found, header=replace(found.header, key=record(IMAGES, OTHER).header.key))
    with pytest.raises(MeguError, match="does not open"):
        claimed.opened(OTHER)


def guesses(image: Any) -> set[bytes]:
    """All that somebody with the image, and without the key, could look for in a list: ids, hashes, and keyed hashes under keys they know."""
    identifier = bytes(image_ids(image[None])[0])
    sign = near.strengths(image[None]).hashes.tobytes()
    plain = {identifier, bytes.fromhex(identifier.decode()), sign, image.tobytes()[:16]}
    digests = {hashlib.new(name, value).digest() for name in ("sha256", "md5", "sha1") for value in plain}
    keyed = {commit(key, value) for key in (b"", OTHER, bytes(32), b"megu suppression list 1") for value in plain}
    return plain | digests | keyed


@settings(deadline=None, max_examples=30)
@given(key=st.binary(min_size=32, max_size=32), seed=st.integers(0, 1000))
def test_a_list_without_its_key_says_nothing_of_a_known_image(key: bytes, seed: int) -> None:
    images = garments(4, 1, seed=seed)
    listed, again, others = record(images, key), record(images, key), record(garments(4, 1, seed=seed + 5000), key)
    # The same samples twice are as different as others: nobody can compare two records, or an image with one.
    assert listed.content != again.content
    assert len(listed.content) == len(others.content)
    for image in images:
        for guess in guesses(image):
            for part in (guess[:8], guess[-8:], guess.hex()[:16].encode()):
                assert part not in listed.to_bytes()


def test_samples_that_were_erased_together_with_as_many_others_have_a_record_of_their_own() -> None:
    one, two = record(IMAGES[:3]), record(IMAGES[3:6])
    assert one.header.id != two.header.id
    assert record(IMAGES[:3]).header.id == one.header.id


def test_images_are_certain_suspected_or_neither(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(record(IMAGES).to_bytes())
    (tmp_path / "key").write_text(KEY.hex())
    listed = SuppressionList.read(tmp_path / "list", tmp_path / "key")
    brighter = np.minimum(IMAGES.astype(np.int16) + 3, 255).astype(np.uint8)
    found = listed.find(np.concatenate([IMAGES, brighter, garments(20, 3, seed=3, size=32)]))
    assert found.certain.tolist() == [0] * 20 + [-1] * 40
    assert found.suspected.tolist() == [-1] * 20 + [0] * 20 + [-1] * 20
    assert len(listed) == 20
    with pytest.raises(MeguError, match="not there"):
        SuppressionList.read(tmp_path / "list", tmp_path / "no key")


def test_a_grey_image_in_colour_and_a_file_that_was_cut_and_made_smaller_are_certain() -> None:
    from megu.erasure.search.resized import packed

    files = garments(6, 1, size=48)[:, :40]
    erased = packed(files, (16, 16))
    listed = SuppressionList([record(erased)], KEY)
    assert (listed.find(np.repeat(erased, 3, axis=3)).certain == 0).all()
    assert (listed.find(files).certain == 0).all()
    assert (listed.find(np.repeat(files, 3, axis=3)).certain == 0).all()


def test_a_record_counts_until_its_last_day() -> None:
    found = record(IMAGES, until="2026-12-24")
    for today, count in ((date(2026, 12, 24), 20), (date(2026, 12, 25), 0)):
        listed = SuppressionList([found], KEY, today)
        assert len(listed) == count
        assert int((listed.find(IMAGES).certain == 0).sum()) == count
