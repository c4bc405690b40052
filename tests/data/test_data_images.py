from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megu.core.errors import MeguError
from megu.core.progress import listening
from megu.data.arrays import Dataset, Facts, image_ids
from megu.data.images import folders as images
from megu.data.images.folders import pack
from megu.data.images.packing import Packing, parse_packing
from megu.data.sources.idx import read_idx


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


def read(source: Path | list[Path], **packing: Any) -> Dataset:
    """``source`` packed beside it."""
    first = source if isinstance(source, Path) else source[0]
    return pack(first.parent / f"packed-{uuid.uuid4().hex}", source, Facts("set", ()), Packing(**packing))


def content(dataset: Dataset) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in dataset.path.iterdir()}


def test_a_folder(tmp_path: Path) -> None:
    found = read(class_folders(tmp_path / "set"))
    assert found.classes == ("cat", "dog", "emu")
    assert found.coarse is None
    assert found.train.images.shape == (6, 4, 6, 3)
    assert found.train.labels.tolist() == found.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(found.train.images[2], np.asarray(Image.open(tmp_path / "set" / "train" / "dog" / "0.png")))
    assert found.train.names is not None
    assert found.train.names.tolist() == [b"cat/0", b"cat/1", b"dog/0", b"dog/1", b"emu/0", b"emu/1"]
    assert np.array_equal(found.train.ids, image_ids(found.train.images))


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    assert read(class_folders(tmp_path / "set", grey=True)).train.images.shape == (6, 4, 6, 1)


@pytest.mark.parametrize("where", ["train/cat/0.png", "train/dog/1.png", "test/emu/0.png"])
def test_one_colour_image_makes_all_colour(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_BATCH", 2)
    root = class_folders(tmp_path / "set", grey=True)
    before = read(root)
    colour = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(colour).save(root / where)
    after = read(root)
    for split in ("train", "test"):
        grey = np.repeat(getattr(before, split).images, 3, axis=3)
        found = getattr(after, split)
        changed = [where == f"{split}/{name.decode()}.png" for name in found.names]
        assert np.array_equal(found.images[~np.array(changed)], grey[~np.array(changed)])
        assert all(np.array_equal(image, colour) for image in found.images[np.array(changed)])


def test_val_serves_as_test(tmp_path: Path) -> None:
    assert len(read(class_folders(tmp_path / "set", test="val")).test) == 6


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


@pytest.mark.parametrize("packed", [pack_zip, pack_tar, pack_in_two])
def test_archives_hold_the_same_as_the_folder(tmp_path: Path, packed: Callable[[Path], Path]) -> None:
    root = class_folders(tmp_path / "set")
    assert content(read(packed(root))) == content(read(root))


def test_several_sources_and_superclasses(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    packed = pack_in_two(root)
    (tmp_path / "superclasses.json").write_text(json.dumps({"pet": ["cat", "dog"], "bird": ["emu"]}))
    found = read([packed / "train.zip", packed / "test.zip", tmp_path / "superclasses.json"])
    assert found.coarse == ("pet", "pet", "bird")


def other_size(root: Path) -> str:
    Image.fromarray(np.zeros((5, 6, 3), dtype=np.uint8)).save(root / "train" / "dog" / "1.png")
    return "train/dog/1.png is 6x5 pixels"


def not_an_image(root: Path) -> str:
    (root / "test" / "cat" / "0.png").write_bytes(b"hello")
    return "test/cat/0.png: not an image"


def cut_image(root: Path) -> str:
    file = root / "test" / "cat" / "0.png"
    file.write_bytes(file.read_bytes()[:40])
    return "1 of 12 files are not images that can be read"


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


def superclass_twice(root: Path) -> str:
    (root / "superclasses.json").write_text('{"pet": ["cat", "dog", "emu"], "bird": ["emu"]}')
    return "'emu' in 'pet' and in 'bird'"


def superclass_broken(root: Path) -> str:
    (root / "superclasses.json").write_text("[1]")
    return "not of the form"


@pytest.mark.parametrize(
    "spoil",
    [
        other_size,
        not_an_image,
        cut_image,
        no_test,
        two_tests,
        stray_image,
        superclass_missing,
        superclass_twice,
        superclass_broken,
    ],
)
def test_wrong_folders(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = class_folders(tmp_path / "set")
    expected = spoil(root)
    with pytest.raises(MeguError) as raised:
        read(root)
    assert expected in str(raised.value)
    assert raised.value.fix


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scandir = class_folders(tmp_path / "set"), os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MeguError, match=r"test/dog cannot be read \(Permission denied\)"):
        read(root)


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
            read(tmp_path / name)


@pytest.mark.parametrize("seed", range(4))
def test_the_bytes_do_not_depend_on_how_and_in_which_order_the_files_are_packed(tmp_path: Path, seed: int) -> None:
    """Every file goes to one of three archives by chance, in any order, as PNG, WebP or BMP (all without loss)."""
    root = class_folders(tmp_path / "set", n=3)
    expected = content(read(root))
    rng = np.random.default_rng(seed)
    files = [*root.rglob("*.png")]
    archives = [tmp_path / f"{n}.zip" for n in range(3)]
    bundles = [zipfile.ZipFile(path, "w") for path in archives]
    for position in rng.permutation(len(files)):
        file = files[position]
        kind, options = [("png", {}), ("webp", {"lossless": True, "exact": True}), ("bmp", {})][int(rng.integers(3))]
        other = tmp_path / f"one.{kind}"
        Image.open(file).save(other, **options)
        bundles[int(rng.integers(3))].write(other, file.relative_to(root).with_suffix(f".{kind}"))
    for bundle in bundles:
        bundle.close()
    assert content(read([archives[n] for n in rng.permutation(3)])) == expected


def test_the_batches_do_not_matter_and_threads_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders(tmp_path / "set", n=5)
    expected = content(read(root))
    for batch, pays in ((1, 10**9), (4, 0), (7, 10**9)):
        monkeypatch.setattr(images, "_BATCH", batch)
        monkeypatch.setattr(images, "_THREADS_PAY", pays)
        assert content(read(root)) == expected


def test_images_of_any_size_are_cut_and_resized_to_the_one_asked_for(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = (200, 100, 50)
    Image.fromarray(wide).save(root / "train" / "cat" / "0.png")
    with pytest.raises(MeguError, match=r"bring all images to one size with --size"):
        read(root)
    found = read(root, size=(4, 4))
    assert found.train.images.shape == (6, 4, 4, 3)
    assert (found.train.images[0] == (200, 100, 50)).all(), "the middle square of the wide image"
    assert found.resized == "to 4 x 4 pixels (height x width): the middle cut to that shape, then resized (bilinear)"
    same = read(class_folders(tmp_path / "other"), size=(4, 6))
    assert np.array_equal(same.train.images, read(tmp_path / "other").train.images), "images of that size stay as they are"


@pytest.mark.parametrize("mode", ["P", "RGBA", "1", "LA", "I;16", "CMYK"])
def test_every_kind_of_image_becomes_grey_or_colour(tmp_path: Path, mode: str) -> None:
    root = tmp_path / "set"
    ending = "tif" if mode == "CMYK" else "png"
    for split in ("train", "test"):
        (root / split / "a").mkdir(parents=True)
        if mode == "I;16":
            Image.fromarray(np.full((3, 3), 0x7F80, dtype=np.uint16)).save(root / split / "a" / f"0.{ending}")
        else:
            Image.new("RGB", (3, 3), (255, 255, 255)).convert(mode).save(root / split / "a" / f"0.{ending}")
    found = read(root).train.images
    assert found.shape == (1, 3, 3, 1 if mode in ("1", "LA", "I;16") else 3)
    assert (found == (0x7F if mode == "I;16" else 255)).all()


def test_a_few_corrupt_images_are_left_out_and_listed(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", n=10)
    clean = read(root)
    (root / "train" / "dog" / "3.png").write_bytes(b"no")
    cut = root / "test" / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(MeguError, match="2 of 60 files are not images that can be read") as raised:
        read(root, max_corrupt=0.03)
    assert "train/dog/3.png: not an image" in raised.value.what
    assert "--max-corrupt (now 0.03)" in raised.value.fix
    found = read(root, max_corrupt=2 / 60)
    assert [line.split(":")[0] for line in found.left_out] == ["train/dog/3.png", "test/cat/0.png"]
    assert (len(found.train), len(found.test)) == (29, 29)
    assert np.array_equal(found.train.ids, np.delete(clean.train.ids, 13))
    assert np.array_equal(found.train.labels, np.delete(clean.train.labels, 13))
    assert found.train.names is not None
    assert b"dog/3" not in found.train.names


def test_files_that_differ_in_their_ending_keep_it(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    Image.open(root / "train" / "cat" / "1.png").save(root / "train" / "cat" / "0.bmp")
    names = read(root).train.names
    assert names is not None
    assert names.tolist()[:3] == [b"cat/0.bmp", b"cat/0.png", b"cat/1"]


@pytest.mark.parametrize("grey", [True, False])
def test_labels_by_superclass_agree_with_the_classes(tmp_path: Path, grey: bool) -> None:
    root = class_folders(tmp_path / "set", grey=grey)
    above = {"pet": ["cat", "dog"], "bird": ["emu"]}
    fine, coarse = read(root, superclasses=above), read(root, superclasses=above, coarse_labels=True)
    assert (coarse.classes, coarse.fine, coarse.coarse) == (("bird", "pet"), fine.classes, None)
    assert fine.coarse is not None
    for split in ("train", "test"):
        one, other = getattr(fine, split), getattr(coarse, split)
        assert np.array_equal(one.labels, other.fine)
        assert [coarse.classes[k] for k in other.labels] == [fine.coarse[k] for k in one.labels]
        assert np.array_equal(one.ids, other.ids)
    with pytest.raises(MeguError, match="need a superclass file"):
        read(root, coarse_labels=True)


def test_a_part_of_the_classes_and_of_their_images(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", n=9)
    (root / "superclasses.json").write_text('{"pet": ["cat", "dog"], "bird": ["emu"]}')
    whole, part = read(root), read(root, only=("emu", "cat"), per_class=4)
    assert (part.classes, part.coarse) == (("cat", "emu"), ("pet", "bird"))
    assert part.reduced == "2 class folders, at most 4 images of each class and split"
    assert whole.reduced == ""
    for split in ("train", "test"):
        one, all_of_it = getattr(part, split), getattr(whole, split)
        assert one.labels.tolist() == [0] * 4 + [1] * 4
        known = dict(zip(all_of_it.names.tolist(), all_of_it.ids.tolist(), strict=True))
        assert [known[name] for name in one.names.tolist()] == one.ids.tolist()
        assert one.names.tolist() == sorted(one.names.tolist())
        assert one.names.tolist()[:4] != [b"cat/0", b"cat/1", b"cat/2", b"cat/3"]
    assert content(read(pack_zip(root), only=("cat", "emu"), per_class=4)) == content(part)
    assert len(read(root, per_class=100).train) == 27


def test_fewer_images_are_among_the_more(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", n=9)
    few, more = (read(root, per_class=n).train.names for n in (2, 5))
    assert few is not None
    assert more is not None
    assert set(few.tolist()) < set(more.tolist())


def test_a_part_without_a_class_in_one_split_is_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    shutil.rmtree(root / "test" / "emu")
    with pytest.raises(MeguError, match="there are no train images of 'Cat'"):
        read(root, only=("Cat", "dog"))
    with pytest.raises(MeguError, match="there are no test images of 'emu'"):
        read(root, only=("dog", "emu"))


def test_packing_tells_how_far_it_is(tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}

    class Listener:
        def start(self, label: str, total: int | None, unit: str):  # type: ignore[no-untyped-def]
            told[label] = [total or 0, 0]

            def advance(amount: int) -> None:
                told[label][1] += amount

            return advance

        def stop(self, label: str) -> None: ...

    with listening(Listener()):
        read(class_folders(tmp_path / "set"))
    assert told["decode train images"] == told["decode test images"] == [6, 6]


def test_what_the_command_line_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"pet": ["cat"]}')
    assert parse_packing("24x32", file, "coarse", 0.5) == Packing((24, 32), 0.5, True, {"pet": ["cat"]})
    assert parse_packing("32", None, "fine", 0.0) == Packing((32, 32), 0.0)
    part = parse_packing(None, None, "fine", 0.0, "cat, dog", 3)
    assert (part.only, part.per_class) == (("cat", "dog"), 3)
    with pytest.raises(MeguError, match="--only 'cat,,dog' has an empty name"):
        parse_packing(None, None, "fine", 0.0, "cat,,dog")
    for size, path, labels in (
        ("0", None, "fine"),
        ("3x4x5", None, "fine"),
        ("x", None, "fine"),
        (None, tmp_path / "no", "fine"),
    ):
        with pytest.raises(MeguError):
            parse_packing(size, path, labels, 0.0)
    with pytest.raises(MeguError, match="--labels"):
        parse_packing(None, None, "both", 0.0)


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
