"""A forgotten image is found in another size; what is not certain is suspected and not erased."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from purge_fixtures import garments, patterns

from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import Dataset, Facts
from megu.data.images.folders import pack
from megu.data.images.packing import Packing
from megu.erasure.forgotten import _copies
from megu.erasure.search.resized import Resized, packed
from megu.erasure.search.scan import Found, Scanner

NATIVE = garments(40, size=28)


@pytest.mark.parametrize("size", [(14, 14), (56, 56), (21, 28), (40, 20), (9, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_packing_makes_of_an_image_is_that_image(size: tuple[int, int], channels: int) -> None:
    images = garments(40, channels, size=28)
    others = packed(images, size)
    assert Resized(images[5:8]).find(others).certain.tolist() == [-1] * 5 + [0, 1, 2] + [-1] * 32
    assert Resized(others[5:8]).find(images).certain.tolist() == [-1] * 5 + [0, 1, 2] + [-1] * 32, "and the other way round"


def test_a_grey_image_in_a_set_of_colour_is_that_image() -> None:
    assert Resized(NATIVE[3:4]).certain(np.repeat(NATIVE, 3, axis=3)).tolist() == [-1] * 3 + [0] + [-1] * 36
    assert Resized(np.repeat(NATIVE[3:4], 3, axis=3)).certain(packed(NATIVE, (14, 14))).tolist() == [-1] * 3 + [0] + [-1] * 36


@pytest.mark.parametrize(("here", "there"), [(14, 56), (56, 14), (20, 56), (16, 28)])
def test_two_sizes_of_a_photograph_that_is_not_here_are_suspected(here: int, there: int) -> None:
    photographs = garments(40, 3, size=96)
    found = Resized(packed(photographs, (here, here))[5:8]).find(packed(photographs, (there, there)))
    assert np.flatnonzero(found.certain >= 0).tolist() == []
    assert np.flatnonzero(found.suspected).tolist() == [5, 6, 7]


def test_images_that_tell_nothing_are_not_taken_for_others() -> None:
    plain = np.stack([np.full((28, 28, 1), shade, dtype=np.uint8) for shade in (0, 1, 100, 255)])
    for rows in (packed(plain, (14, 14)), packed(NATIVE, (4, 4))):
        found = Resized(np.concatenate([plain, NATIVE])).find(rows)
        assert not (found.certain >= 0).any()
        assert not found.suspected.any()
    assert Resized(NATIVE).find(NATIVE).certain.max() == -1, "of one shape, bytes are looked for"


def saved(rows: Any, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    if compressed:
        np.savez_compressed(file, images=rows)
    else:
        np.save(file, rows)
    return file.getvalue()


def test_an_array_of_another_size_is_looked_into_wherever_it_is() -> None:
    scanner, photographs = Scanner(patterns(NATIVE[:4])), garments(12, size=96)
    small = packed(NATIVE, (14, 14))
    for rows in (small, small[..., 0], np.repeat(small, 3, axis=3).transpose(0, 3, 1, 2)):
        assert scanner.content(saved(rows)) == Found(copies=frozenset(range(4)))
    assert scanner.content(saved(small, compressed=True)) == Found(copies=frozenset(range(4)))
    assert not scanner.content(saved(small[4:])).doubtful
    for broken in (saved(small)[:-5], saved(small)[:40], saved(small.astype(np.float32)), saved(np.zeros(5, dtype=np.uint8))):
        assert not scanner.content(broken)
    suspecting = Scanner(patterns(packed(photographs, (28, 28))[:2]))
    found = suspecting.content(saved(packed(photographs, (64, 64)), compressed=True))
    assert not found
    assert found.suspected == {"images.npy: 2 rows look like images of them in another size, from 0: 0, 1"}
    assert str(found) == "suspected: images.npy: 2 rows look like images of them in another size, from 0: 0, 1"


def picture(image: Any, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, form, **options)
    return file.getvalue()


def test_the_file_that_an_image_was_cut_out_of_is_found_and_smaller_pictures_of_it() -> None:
    photographs = garments(6, 3, size=96)[:, :72]  # wider than high: data sets have the middle
    scanner = Scanner(patterns(packed(photographs, (32, 32))[:3]))
    for number, form in enumerate(({"form": "PNG"}, {"form": "JPEG", "quality": 95}, {"form": "WEBP", "quality": 90})):
        assert scanner.content(picture(photographs[number], **form)).copies == {number}, form
        assert not scanner.content(picture(photographs[number + 3], **form)).doubtful
    thumbnail = packed(scanner.images, (16, 16))
    assert scanner.content(picture(thumbnail[1])).copies == {1}
    assert scanner.content(picture(packed(photographs, (16, 16))[1])).suspected, "not made of the image that is here"
    assert not scanner.content(picture(packed(photographs, (16, 16))[4])).doubtful


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of images."""
    root = tmp_path_factory.mktemp("files")
    for number, image in enumerate(NATIVE):
        path = root / ("test" if number % 4 == 3 else "train") / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return root


def test_every_set_that_the_files_were_packed_into_has_its_rows_found(project: Project, files: Path) -> None:
    def made(name: str, size: tuple[int, int] | None) -> Dataset:
        return pack(project.data(name), files, Facts(name, []), Packing(size=size))

    sets = {name: made(name, size) for name, size in (("own", None), ("small", (14, 14)), ("wide", (16, 32)))}
    arrays.save(
        project.data("unlike"), name="unlike", classes=["c"], train=(garments(9, size=20), np.zeros(9, dtype=np.int64)),
        test=(garments(3, size=20, seed=4), np.zeros(3, dtype=np.int64)),
    )  # fmt: skip
    wanted = {"train": np.arange(len(sets["own"].train)) < 3, "test": np.zeros(len(sets["own"].test), dtype=bool)}
    for asked in ("own", "small", "wide"):
        found = {dataset.name: masks for dataset, masks in _copies(project, [(sets[asked], wanted)])}
        assert set(found) == {"own", "small", "wide"}, f"asked for in {asked}"
        for masks in found.values():
            assert np.array_equal(masks["train"], wanted["train"])
            assert not masks["test"].any()
