"""Every kind of copy is found before it is erased, and what is kept is not taken for one."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from purge_fixtures import encoded, garments, patterns

from megu.core.files.store import Store
from megu.data.writing import write_array
from megu.erasure.search.scan import Found, Scanner
from megu.labeling.ollama.questions import Shown
from megu.report import figures

IMAGES = garments(12)
KEPT = garments(12, seed=1)


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(patterns(IMAGES))


def figure(images: Any, count: int = 12) -> bytes:
    """The report's figure of samples."""
    shown = figures.Samples(
        images=images[:count],
        true=("Sneaker",) * count,
        predicted=np.zeros(count, dtype=np.int64),
        confidence=np.ones(count),
        targets=np.eye(3)[np.zeros(count, dtype=int)],
    )
    drawn = figures.samples(figures.FigureData(classes=("Sneaker", "Boot", "Bag"), forgotten=(0,), per_class={}, samples=shown))
    assert drawn is not None
    return figures.png(drawn)


def uri(content: bytes, kind: str) -> bytes:
    return b'<img src="data:image/' + kind.encode() + b";base64," + base64.b64encode(content) + b'">'


def zipped(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("image.png")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


def saved(image: Any) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, images=image[None])
    return packed.getvalue()


def asked(image: Any) -> bytes:
    """A question to a vision model, as its client would log it."""
    return json.dumps({"images": [base64.b64encode(Shown(image, 224).png).decode()]}).encode()


FORMS: dict[str, Callable[[Any], bytes]] = {
    "bytes in a larger file": lambda image: b"head" + image.tobytes() + b"tail",
    "PNG": encoded,
    "JPEG": lambda image: encoded(image, "JPEG"),
    "WebP": lambda image: encoded(image, "WEBP"),
    "BMP": lambda image: encoded(image, "BMP"),
    "PNG, made larger": lambda image: encoded(image, side=224),
    "JPEG, made larger": lambda image: encoded(image, "JPEG", 224),
    "a data URI in a page": lambda image: b"<html>" + uri(encoded(image), "png"),
    "a JPEG data URI": lambda image: uri(encoded(image, "JPEG"), "jpeg"),
    "a WebP data URI": lambda image: uri(encoded(image, "WEBP"), "webp"),
    "a question to a vision model": asked,
    "compressed arrays": saved,
    "zip": lambda image: zipped("a.png", encoded(image)),
    "tar.gz": lambda image: tarred(encoded(image)),
    "zip in zip": lambda image: zipped("a.zip", zipped("a.bin", image.tobytes())),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_forgotten_image_is_found_in_every_form_and_a_kept_one_is_not(scanner: Scanner, tmp_path: Path, form: str) -> None:
    suffix = ".bmp" if form == "BMP" else ".bin"
    planted, kept = tmp_path / f"planted{suffix}", tmp_path / f"kept{suffix}"
    planted.write_bytes(FORMS[form](IMAGES[5]))
    kept.write_bytes(FORMS[form](KEPT[5]))
    found = scanner.file(planted)
    assert found.pixels | found.copies == {5}
    assert not scanner.file(kept)


def test_every_thumbnail_in_the_reports_figure_is_found(scanner: Scanner) -> None:
    assert scanner.content(figure(IMAGES)).copies == set(range(12))
    assert scanner.content(b"<html>" + uri(figure(IMAGES), "png")).copies == set(range(12))
    assert not scanner.content(figure(KEPT))


def test_colour_thumbnails_too() -> None:
    images = garments(6, channels=3, size=32)
    assert Scanner(patterns(images)).content(figure(images, 6)).copies == set(range(6))


def test_arrays_of_a_data_set_and_of_the_store_are_looked_into(scanner: Scanner, tmp_path: Path) -> None:
    write_array(tmp_path / "train_images.npy", np.concatenate([KEPT, IMAGES[2:4]]))
    assert scanner.file(tmp_path / "train_images.npy").pixels == {2, 3}
    store = Store(tmp_path / "store")
    ref = store.put_arrays({"exemplar_ids": scanner.patterns.ids[1:2].view(np.uint8).reshape(1, 32), "q": np.zeros((3, 3))})
    assert scanner.file(store.path(ref)) == Found(ids=frozenset({1}))


def test_a_database_is_read_by_its_cells(scanner: Scanner, tmp_path: Path) -> None:
    """A long value lies in pieces all over the file."""
    path = tmp_path / "some.db"
    with sqlite3.connect(path) as opened:
        opened.execute("CREATE TABLE artifact (data TEXT)")
        opened.execute("INSERT INTO artifact VALUES (?)", (uri(figure(IMAGES), "png").decode(),))
        opened.execute("INSERT INTO artifact VALUES (?)", (json.dumps({"ids": [scanner.patterns.ids[7].decode()]}),))
    assert scanner.file(path) == Found(copies=frozenset(range(12)), ids=frozenset({7}))


def test_broken_files_are_no_images_and_hide_none(scanner: Scanner) -> None:
    for content in (b"\x89PNG\r\n\x1a\n", b"PK\x03\x04broken", b"\x1f\x8bbroken", b"RIFF0000WEBP", b"iVBORw0KGgo" + b"A" * 60):
        assert not scanner.content(content)
        assert scanner.content(content + IMAGES[1].tobytes()).pixels == {1}


def test_what_was_found_is_said_in_words() -> None:
    assert str(Found(frozenset({1, 2}), frozenset({3}), frozenset())) == "the bytes of 2 images, 1 images in another form"
    assert Found(ids=frozenset({1})).images is False
