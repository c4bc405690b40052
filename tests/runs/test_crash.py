"""Kill -9 at random moments of the flow: one here, fifty by hand (benchmarks/crash.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import printed


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_after_a_kill_the_next_run_comes_to_the_same_root_and_nothing_is_lost_or_left_unlabelled(
    tmp_path: Path, fashion_mnist_project: Path, databases: Path
) -> None:
    """In a process of its own, which forks the runs, and the kill in the middle of a run."""
    data = fashion_mnist_project / "data" / "fashion-mnist"
    *_, last = printed(
        "crash.py", "--times=1", "--at=unlearn", f"--keep={tmp_path / 'project'}", f"--data={data}", f"--databases={databases}"
    )
    summary = json.loads(last)
    assert (summary["kills"], summary["wrong"]) == (1, [])
