from __future__ import annotations

import gzip
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megu.data.images import ClassFolders, read_class_folders, read_idx
from megu.errors import MeguError


def class_folders(root: Path, *, grey: bool = False, test: str = "test", n: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", test):
        for label in ("cat", "dog", "emu"):
            (root / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (4, 6) if grey else (4, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    (root / "README.txt").write_text("not an image")
    return root


def equal(one: ClassFolders, other: ClassFolders) -> bool:
    pairs = zip((*one.train, *one.test), (*other.train, *other.test), strict=True)
    return (one.classes, one.coarse) == (other.classes, other.coarse) and all(np.array_equal(a, b) for a, b in pairs)


def test_a_folder(tmp_path: Path) -> None:
    found = read_class_folders(class_folders(tmp_path / "set"))
    assert found.classes == ("cat", "dog", "emu")
    assert found.coarse is None
    assert found.train[0].shape == (6, 4, 6, 3)
    assert found.train[1].tolist() == found.test[1].tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(found.train[0][2], np.asarray(Image.open(tmp_path / "set" / "train" / "dog" / "0.png")))


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    assert read_class_folders(class_folders(tmp_path / "set", grey=True)).train[0].shape == (6, 4, 6, 1)


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", grey=True)
    before = read_class_folders(root).train[0]
    Image.fromarray(np.full((4, 6, 3), 9, dtype=np.uint8)).save(root / "test" / "emu" / "0.png")
    after = read_class_folders(root).train[0]
    assert np.array_equal(after, np.repeat(before, 3, axis=3))


def test_val_serves_as_test(tmp_path: Path) -> None:
    assert len(read_class_folders(class_folders(tmp_path / "set", test="val")).test[1]) == 6


def pack_zip(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.*"), reverse=True):
            archive.write(file, file.relative_to(root.parent))
    return path


def pack_tar(root: Path) -> Path:
    path = root.with_name("set.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root, arcname=".")
    return path


def pack_in_two(root: Path) -> Path:
    folder = root.with_name("packed")
    folder.mkdir()
    for split in ("train", "test"):
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for file in (root / split).rglob("*.png"):
                archive.write(file, file.relative_to(root))
    return folder


@pytest.mark.parametrize("pack", [pack_zip, pack_tar, pack_in_two])
def test_archives_hold_the_same_as_the_folder(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    root = class_folders(tmp_path / "set")
    assert equal(read_class_folders(pack(root)), read_class_folders(root))


def test_several_sources_and_superclasses(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    packed = pack_in_two(root)
    (tmp_path / "superclasses.json").write_text(json.dumps({"pet": ["cat", "dog"], "bird": ["emu"]}))
    found = read_class_folders([packed / "train.zip", packed / "test.zip", tmp_path / "superclasses.json"])
    assert found.coarse == ("pet", "pet", "bird")


def other_size(root: Path) -> str:
    Image.fromarray(np.zeros((5, 6, 3), dtype=np.uint8)).save(root / "train" / "dog" / "1.png")
    return "train/dog/1.png is 6x5 pixels"


def not_an_image(root: Path) -> str:
    (root / "test" / "cat" / "0.png").write_bytes(b"hello")
    return "test/cat/0.png is not an image"


def cut_image(root: Path) -> str:
    file = root / "test" / "cat" / "0.png"
    file.write_bytes(file.read_bytes()[:40])
    return "test/cat/0.png is not an image"


def no_test(root: Path) -> str:
    (root / "test").rename(root / "test.old")
    return "is not in a class folder"


def two_tests(root: Path) -> str:
    (root / "val" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "0.png").rename(root / "val" / "cat" / "9.png")
    return "images under test and val"


def stray_image(root: Path) -> str:
    (root / "train" / "cat" / "0.png").rename(root / "0.png")
    return "0.png is not in a class folder"


def superclass_missing(root: Path) -> str:
    (root / "superclasses.json").write_text('{"pet": ["cat"]}')
    return "no superclass for 'dog', 'emu'"


def superclass_broken(root: Path) -> str:
    (root / "superclasses.json").write_text("[1]")
    return "not of the form"


@pytest.mark.parametrize(
    "spoil", [other_size, not_an_image, cut_image, no_test, two_tests, stray_image, superclass_missing, superclass_broken]
)
def test_wrong_folders(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = class_folders(tmp_path / "set")
    expected = spoil(root)
    with pytest.raises(MeguError) as raised:
        read_class_folders(root)
    assert expected in str(raised.value)
    assert raised.value.fix


def test_wrong_sources(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no")
    (tmp_path / "a.tar").write_bytes(b"no")
    (tmp_path / "a.txt").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.zip", "damaged"),
        ("a.tar", "damaged"),
        ("a.txt", "neither a folder nor an archive"),
        ("absent", "does not exist"),
        ("empty", "no train images"),
    ):
        with pytest.raises(MeguError, match=message):
            read_class_folders(tmp_path / name)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_idx(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(idx(values)))
    assert np.array_equal(read_idx(file), values)
    for wrong in (gzip.compress(idx(values)[:-1]), gzip.compress(b"hello"), gzip.compress(idx(values))[:-9], b"no gzip"):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"x\.gz"):
            read_idx(file)
