from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.data import arrays, writing
from megu.data.arrays import Dataset, channel_statistics, coarse_view, image_ids, load, save, set_out


def tiny(path: Path, *, seed: int = 0, n: int = 12, classes: int = 3, channels: int = 1, coarse: Any = None) -> Dataset:
    rng = np.random.default_rng(seed)
    train = rng.integers(0, 256, (n, 5, 4, channels), dtype=np.uint8), np.arange(n) % classes
    test = rng.integers(0, 256, (6, 5, 4, channels), dtype=np.uint8), np.arange(6) % classes
    names = [f"class {i}" for i in range(classes)]
    return save(path, name="tiny", classes=names, coarse=coarse, train=train, test=test, source="here", licence="MIT")


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (7, 5, 4, channels), dtype=np.uint8), np.array([0, 1, 0, 1, 0, 1, 0])
    saved = save(tmp_path / "d", name="d", classes=["a", "b"], train=(images, labels), test=(images[:2], labels[:2]))
    opened = load(tmp_path / "d")
    assert np.array_equal(opened.train.images, images)
    assert np.array_equal(opened.train.labels, labels)
    assert np.array_equal(opened.test.images, images[:2])
    assert (opened.num_classes, opened.channels, opened.image_size, len(opened.train)) == (2, channels, (5, 4), 7)
    assert opened.mean == saved.mean == tuple(np.round((images / 255).mean(axis=(0, 1, 2)), 4))
    assert opened.std == saved.std == tuple(np.round((images / 255).std(axis=(0, 1, 2)), 4))
    assert not opened.train.images.flags.writeable


def test_statistics_by_hand() -> None:
    images = np.array([0, 255, 0, 255], dtype=np.uint8).reshape(4, 1, 1, 1)
    assert channel_statistics(images) == ((0.5,), (0.5,))


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    tiny(tmp_path / "one")
    tiny(tmp_path / "elsewhere" / "two")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "elsewhere" / "two" / file.name).read_bytes(), file.name


@given(seed=st.integers(0, 2**16), n=st.integers(1, 20))
@settings(max_examples=25)
def test_ids_follow_the_image_not_its_position(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 3, (n, 2, 2, 1), dtype=np.uint8)
    order = rng.permutation(n)
    ids = image_ids(images)
    assert np.array_equal(image_ids(images[order]), ids[order])
    same_image = (images[:, None] == images[None]).all(axis=(2, 3, 4))
    assert np.array_equal(same_image, ids[:, None] == ids[None])


def test_the_id_is_the_documented_hash() -> None:
    from hashlib import blake2b

    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert image_ids(image)[0].decode() == blake2b(bytes(range(12)), digest_size=16).hexdigest()


def cut(path: Path) -> None:
    file = path / "train_images.npy"
    file.write_bytes(file.read_bytes()[:-1])


def drop(path: Path) -> None:
    (path / "test_ids.npy").unlink()


def wrong_label(path: Path) -> None:
    labels = np.load(path / "train_labels.npy")
    labels[0] = 99
    np.save(path / "train_labels.npy", labels)


def wrong_dtype(path: Path) -> None:
    np.save(path / "test_labels.npy", np.zeros(6, dtype=np.float32))


def broken_json(path: Path) -> None:
    (path / "meta.json").write_text("{")


def unknown_key(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"extra": 1}))


def pickled(path: Path) -> None:
    np.save(path / "train_labels.npy", np.array([{}] * 12, dtype=object), allow_pickle=True)


def empty_file(path: Path) -> None:
    (path / "train_ids.npy").write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, drop, wrong_label, wrong_dtype, broken_json, unknown_key, pickled, empty_file])
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    tiny(tmp_path / "tiny")
    damage(tmp_path / "tiny")
    with pytest.raises(MeguError, match="damaged") as raised:
        load(tmp_path / "tiny")
    assert str(tmp_path / "tiny") in raised.value.what
    assert raised.value.fix


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="no data set"):
        load(tmp_path / "absent")


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "tiny")
    before = (tmp_path / "tiny" / "train_images.npy").read_bytes()

    def full(path: Path, array: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(arrays, "write_array", full)
    with pytest.raises(MeguError, match="disk is full"):
        tiny(tmp_path / "tiny", seed=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]
    assert (tmp_path / "tiny" / "train_images.npy").read_bytes() == before


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.int64), np.empty(0, dtype=np.int64), np.zeros((2, 3, 1, 1), np.uint8)])
def test_arrays_are_written_as_numpy_would(tmp_path: Path, array: np.ndarray) -> None:
    writing.write_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "numpys.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_really_full_device_has_its_error_number() -> None:
    with pytest.raises(MeguError, match="disk is full"), writing.write_errors_answered(Path("x")):
        writing.write_array(Path("/dev/full"), np.zeros(1 << 20, dtype=np.uint8))


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    channels=st.lists(st.sampled_from([1, 3]), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_images_written_in_parts_are_the_bytes_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], channels: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("writer")
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 256, (n, 3, 4, c), dtype=np.uint8) for n, c in zip(sizes, channels, strict=False) if n]
    if not parts:
        return
    writer = writing.ImageWriter(folder / "a.npy")
    for part in parts:
        writer.append(part)
    writer.close()
    most = max(part.shape[3] for part in parts)
    whole = np.concatenate([np.repeat(p, most, axis=3) if p.shape[3] < most else p for p in parts])
    writing.write_array(folder / "b.npy", whole)
    assert (folder / "a.npy").read_bytes() == (folder / "b.npy").read_bytes()


def test_statistics_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (17, 5, 3, 3), dtype=np.uint8)
    expected = channel_statistics(images)
    monkeypatch.setattr(writing, "_CHUNK_PIXELS", 100)
    assert channel_statistics(images) == expected


def test_coarse_view_relabels_and_keeps_ids(tmp_path: Path) -> None:
    fine = tiny(tmp_path / "tiny", classes=3, coarse=["wheels", "animals", "wheels"])
    coarse = coarse_view(fine)
    assert coarse.classes == ("animals", "wheels")
    assert coarse.train.labels.tolist() == [{0: 1, 1: 0, 2: 1}[label] for label in fine.train.labels.tolist()]
    assert np.array_equal(coarse.train.ids, fine.train.ids)
    with pytest.raises(MeguError, match="no superclasses"):
        coarse_view(coarse)


def test_a_sub_class_set_out_is_a_class_of_its_own_and_its_class_is_without_it(tmp_path: Path) -> None:
    fine = tiny(tmp_path / "tiny", classes=4, coarse=["wheels", "animals", "wheels", "wheels"])
    names, coarse = fine.classes, coarse_view(fine)
    found = set_out(coarse, [names[3], names[0]])
    assert found.classes == ("animals", "wheels", names[3], names[0])
    for part, before in ((found.train, fine.train), (found.test, fine.test)):
        assert part.labels.tolist() == [{0: 3, 1: 0, 2: 1, 3: 2}[label] for label in before.labels.tolist()]
        assert np.array_equal(part.ids, before.ids)
    assert coarse.train.labels.max() == 1, "the data set itself stays"
    with pytest.raises(ValueError):  # noqa: PT011 - tuple.index says what it says
        set_out(coarse, ["no-such"])


def test_fashion_mnist_is_what_it_should_be(fashion_mnist: Dataset) -> None:
    assert fashion_mnist.train.images.shape == (60_000, 28, 28, 1)
    assert fashion_mnist.test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(fashion_mnist.train.labels).tolist() == [6_000] * 10
    assert fashion_mnist.classes[7] == "Sneaker"
    assert (fashion_mnist.mean, fashion_mnist.std) == ((0.286,), (0.353,))
    assert len(np.unique(fashion_mnist.train.ids)) == 60_000


def test_a_limit_keeps_so_many_of_each_class_whatever_their_order(tmp_path: Path) -> None:
    dataset = tiny(tmp_path / "tiny", n=31)
    limited = arrays.limited(dataset, 4)
    assert np.bincount(limited.train.labels).tolist() == [4, 4, 4]
    for k in range(3):  # by hand: the first ids of each class
        own = sorted(dataset.train.ids[dataset.train.labels == k])[:4]
        assert sorted(limited.train.ids[limited.train.labels == k]) == own
    shuffled = np.random.default_rng(5).permutation(31)
    turned = save(
        tmp_path / "turned",
        name="tiny",
        classes=dataset.classes,
        train=(np.asarray(dataset.train.images[shuffled]), np.asarray(dataset.train.labels[shuffled])),
        test=(np.asarray(dataset.test.images), np.asarray(dataset.test.labels)),
    )
    assert set(arrays.limited(turned, 4).train.ids) == set(limited.train.ids)
    np.testing.assert_array_equal(limited.train.ids, image_ids(limited.train.images))
    assert len(limited.test) == len(dataset.test)
    assert (limited.mean, limited.std) == (dataset.mean, dataset.std)


def test_a_limit_above_the_size_of_a_class_or_none_keeps_all(tmp_path: Path) -> None:
    dataset = tiny(tmp_path / "tiny")
    assert arrays.limited(dataset, None) is dataset
    np.testing.assert_array_equal(arrays.limited(dataset, 100).train.ids, dataset.train.ids)
