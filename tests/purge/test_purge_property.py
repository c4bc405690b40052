"""Erasure as a property, over twenty small projects: see `erasing_right`. `benchmarks/erasure.py` does the same two hundred times."""

from __future__ import annotations

from pathlib import Path

import pytest
from erasing_right import problems
from small_projects import drawn

from megu.purge.params import PurgeParams


@pytest.mark.parametrize("number", range(20))
def test_what_was_forgotten_is_gone_and_all_else_is_what_it_was(tmp_path: Path, number: int) -> None:
    made, params = drawn(tmp_path, number)
    assert problems(made, PurgeParams(**params)) == []
