"""Scripts of `benchmarks/`, run as a person runs them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def printed(script: str, *arguments: str) -> list[str]:
    """The lines that a script printed, which has to end well; nothing of the tests' own servers reaches it."""
    ours = ("PREFECT_", "MLFLOW_", "MEGU_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *arguments],
        cwd=ROOT,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def module(script: str) -> ModuleType:
    """A script's functions, without running it; those that it imports lie beside it."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(Path(script).stem)
