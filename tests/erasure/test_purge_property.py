"""Erasure as a property, over twenty small projects: see `erasing_right`. `benchmarks/erasure.py` does the same two hundred times.

A property holds of what its reader sees: that it sees an image in another size is tested too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reading
from erasing_right import problems
from purge_fixtures import encoded, garments
from small_projects import FILES, RESIZED, SIZE, SIZES, draw, drawn, in_size

from megu.erasure.params import PurgeParams
from megu.erasure.search.resized import Resized

FIRST = range(20)


@pytest.mark.parametrize("number", FIRST)
def test_what_was_forgotten_is_gone_and_all_else_is_what_it_was(tmp_path: Path, number: int) -> None:
    made, params = drawn(tmp_path, number)
    assert problems(made, PurgeParams(**params)) == []


def test_among_them_are_three_of_each_kind_of_copy_in_another_size() -> None:
    kinds = [draw(number)[0]["resized"] for number in FIRST]
    assert min(kinds.count(kind) for kind in RESIZED) >= 3
    assert {draw(number)[0].get("size") for number in FIRST} >= set(SIZES)


@pytest.mark.parametrize("kind", RESIZED[1:])
def test_a_purge_that_is_blind_to_other_sizes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(Resized, "_certain", lambda self, rows: np.full(len(rows), -1))
    monkeypatch.setattr(Resized, "_suspected", lambda self, rows: np.zeros(len(rows), dtype=bool))
    made, params = drawn(tmp_path, next(number for number in FIRST if draw(number)[0]["resized"] == kind))
    found = problems(made, PurgeParams(**params))
    for name in ("data/d/train_images.npy", "mine/resized.npz"):
        assert any(f"{name}: " in problem and "a row that is image 0" in problem and "no entry" in problem for problem in found)


@pytest.mark.parametrize("side", [SIZE[0], FILES])
@pytest.mark.parametrize("size", SIZES)
def test_the_reader_sees_an_image_in_another_size_and_no_other(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    files = garments(12, size=side)
    images, rows = in_size(files, SIZE), in_size(files, size)
    np.save(tmp_path / "rows.npy", rows[:6])
    np.savez_compressed(tmp_path / "rows.npz", rows=rows[:6])
    (tmp_path / "row.png").write_bytes(encoded(rows[5]))
    for name in ("rows.npy", "rows.npz", "row.png"):
        assert len(reading.readable(tmp_path / name, images[5:6], [])) == 1, name
        assert not reading.readable(tmp_path / name, images[6:], []), name
