"""Ctrl-C in a real terminal in the middle of a real run: one moment here, more by hand (benchmarks/interrupt.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import printed


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_is_over_in_three_seconds_marked_as_stopped_and_the_next_one_ends_well(
    tmp_path: Path, fashion_mnist_project: Path, databases: Path
) -> None:
    data = fashion_mnist_project / "data" / "fashion-mnist"
    *_, last = printed(
        "interrupt.py", "--moments=unlearn", f"--keep={tmp_path / 'project'}", f"--data={data}", f"--databases={databases}"
    )
    summary = json.loads(last)
    assert (summary["interrupted"], summary["wrong"]) == (1, [])
