"""A data set without some of its samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.data import arrays, erasing
from megu.data.arrays import SPLITS, Columns, Facts


def made(folder: Path, count: int = 6, seed: int = 0) -> arrays.Dataset:
    rng = np.random.default_rng(seed)
    images = {split: rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8) for split in SPLITS}
    columns = {
        split: Columns(np.arange(count) % 2, fine=np.arange(count) % 3, names=[f"cat/{split}{n}" for n in range(count)])
        for split in SPLITS
    }
    facts = Facts("some", ("a", "b"), fine=("x", "y", "z"), left_out=("c.png: broken",))
    return arrays.save_columns(folder, facts, images, columns)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(gone=st.lists(st.booleans(), min_size=6, max_size=6).filter(lambda mask: not all(mask)), seed=st.integers(0, 9))
def test_every_column_loses_the_same_rows_and_keeps_the_others(tmp_path: Path, gone: list[bool], seed: int) -> None:
    before = made(tmp_path / f"some-{seed}-{sum(gone)}", seed=seed)
    mask = np.array(gone)
    after = erasing.write_without(before, {"train": mask, "test": np.zeros(6, dtype=bool)}, tmp_path / f"new-{seed}-{gone}")
    for name in ("images", "labels", "ids", "fine", "names"):
        assert np.array_equal(getattr(after.train, name), np.asarray(getattr(before.train, name))[~mask])
        assert np.array_equal(getattr(after.test, name), getattr(before.test, name))
    assert (after.mean, after.std, after.classes, after.left_out) == (before.mean, before.std, before.classes, before.left_out)


def test_without_a_loss_every_byte_is_the_same(tmp_path: Path) -> None:
    before = made(tmp_path / "some")
    none = {split: np.zeros(6, dtype=bool) for split in SPLITS}
    erasing.write_without(before, none, tmp_path / "same")
    files = sorted(path.name for path in before.path.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "same").iterdir())
    assert all((before.path / name).read_bytes() == (tmp_path / "same" / name).read_bytes() for name in files)


def test_a_data_set_that_nothing_is_left_of_is_refused(tmp_path: Path) -> None:
    before = made(tmp_path / "some")
    with pytest.raises(MeguError, match="nothing would be left of the train images"):
        erasing.write_without(before, {"train": np.ones(6, dtype=bool), "test": np.zeros(6, dtype=bool)}, tmp_path / "new")


def test_images_that_are_there_twice_are_counted_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), dtype=np.uint8)
    columns = {split: Columns(np.arange(4) % 2, names=[f"cat/{split}{n}" for n in range(4)]) for split in SPLITS}
    facts = Facts("some", ("a", "b"), ignored={".DS_Store": 2}, count_repeats=True)
    before = arrays.save_columns(tmp_path / "some", facts, {"train": images, "test": images[::-1]}, columns)
    assert before.repeated == {"in train and in test": 4, "in two classes": 4}
    for gone, left in ((1, 3), (3, 1), (2, 2)):
        mask = np.arange(4) < gone
        after = erasing.write_without(before, {"train": mask, "test": np.zeros(4, dtype=bool)}, tmp_path / f"new{gone}")
        assert after.repeated == {"in train and in test": left, "in two classes": left}
        assert after.ignored == before.ignored
    none = erasing.write_without(before, {"train": np.arange(4) < 2, "test": np.arange(4) < 2}, tmp_path / "none")
    assert "repeated" not in json.loads((none.path / "meta.json").read_text())


def test_the_new_count_is_written_down(tmp_path: Path) -> None:
    before = made(tmp_path / "some")
    mask = np.arange(6) < 2
    erasing.write_without(before, {"train": mask, "test": mask}, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "meta.json").read_text())["splits"] == {"train": [4, 4, 4, 1], "test": [4, 4, 4, 1]}
