"""Kill -9 at random moments of the flow: three here, fifty by hand (benchmarks/crash.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_after_a_kill_the_next_run_comes_to_the_same_root_and_nothing_is_lost_or_left_unlabelled(
    tmp_path: Path, fashion_mnist_project: Path
) -> None:
    """In a process of its own, which forks the runs; the data set is there by then. By its seed a kill after 21, 44 and 80 % of a run."""
    data = fashion_mnist_project / "data" / "fashion-mnist"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "benchmarks/crash.py", "--times=3", "--seed=1422", f"--keep={tmp_path / 'project'}", f"--data={data}"],
        cwd=ROOT,
        env={**environment, "MEGU_PROJECT": "", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["kills"], summary["wrong"]) == (3, [])
