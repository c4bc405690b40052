"""Images in memory and on disk: the same bits, whichever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.data import tensors
from megu.data.arrays import Dataset, save
from megu.data.tensors import ImageSet, free_memory
from megu.training.loop import TrainParams, fingerprint, predict, train
from megu.training.weights import digest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    path = tmp_path_factory.mktemp("data") / "d"
    return save(path, name="d", classes="abcd", train=(images, labels), test=(images[:8], labels[:8]))


def both(dataset: Dataset, index: object = None) -> tuple[ImageSet, ImageSet]:
    """In memory, and on disk by a limit of nothing."""
    memory, disk = (ImageSet.from_partition(dataset.train, dataset.mean, dataset.std, CPU, index, limit) for limit in (None, 0))
    assert memory.rows is None
    assert disk.rows is not None
    return memory, disk


@given(data=st.data())
@settings(max_examples=30)
def test_subsets_and_batches_are_the_same_bits(dataset: Dataset, data: st.DataObject) -> None:
    index = data.draw(st.none() | st.lists(st.integers(0, 39), min_size=1, max_size=40))
    memory, disk = both(dataset, index)
    part = data.draw(st.lists(st.integers(0, len(memory) - 1), min_size=1, max_size=9))
    for one, other in ((memory, disk), (memory.subset(part), disk.subset(part))):
        assert (len(one), one.shape, one.device) == (len(other), other.shape, other.device)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.batch(slice(1, 5)), other.batch(slice(1, 5)))
        at = torch.tensor(data.draw(st.lists(st.integers(0, len(one) - 1), min_size=1, max_size=5)))
        flip, crop = torch.rand(len(at)) < 0.5, torch.randint(9, (len(at), 2))
        assert torch.equal(one.batch(at, flip, crop), other.batch(at, flip, crop))
        assert fingerprint(one) == fingerprint(other)


def test_joined_sets_are_the_same_bits_and_stay_where_they_are(dataset: Dataset) -> None:
    memory, disk = both(dataset)
    first, second = [3, 1, 30], [39, 0]
    expected = memory.subset([*first, *second])
    for one, other in ((memory, memory), (disk, disk), (memory, disk), (disk, memory)):
        found = one.subset(first).joined(other.subset(second))
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert (found.rows is not None) == (one is disk and other is disk)


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
def test_training_and_predictions_are_the_same_bits(dataset: Dataset, augment: str) -> None:
    torch.set_num_threads(1)
    memory, disk = both(dataset, np.arange(1, 39))
    params = TrainParams(epochs=2, batch_size=8, augment=augment)  # type: ignore[arg-type]
    models = [train(images, params, 4, seed=0) for images in (memory, disk)]
    assert digest(models[0]) == digest(models[1])
    assert torch.equal(predict(models[0], memory).logits, predict(models[0], disk).logits)


def test_what_stays_on_disk_is_not_copied(dataset: Dataset) -> None:
    _, disk = both(dataset)
    place = dataset.train.images.__array_interface__["data"][0]
    assert disk.pixels.data_ptr() == disk.subset([3, 1]).pixels.data_ptr() == place, "it is the file's own memory map"


def test_the_share_of_memory_decides(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 40 * 8 * 8 * 3
    for free, on_disk in ((size / tensors.MEMORY_SHARE + 1, False), (size / tensors.MEMORY_SHARE - 1, True)):
        monkeypatch.setattr(tensors, "free_memory", lambda device, free=free: free)
        found = ImageSet.from_partition(dataset.train, dataset.mean, dataset.std, CPU)
        assert (found.rows is not None) == on_disk


def test_the_free_memory_is_a_part_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    assert 0 < free_memory(CPU) <= psutil.virtual_memory().total
    monkeypatch.setattr(Path, "read_text", lambda self: (_ for _ in ()).throw(FileNotFoundError(self)))
    assert free_memory(CPU) == psutil.virtual_memory().total, "where the system does not say what is free"


def test_images_and_labels_must_fit(dataset: Dataset) -> None:
    memory, _ = both(dataset)
    with pytest.raises(ValueError, match="40 images have 3 labels"):
        ImageSet(memory.images, memory.labels[:3], memory.mean, memory.std)
