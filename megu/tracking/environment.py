"""What a run ran on: code, versions, machine. Read from metadata; nothing heavy is imported."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from megu.core.processes import git

PACKAGES = ("megu", "torch", "torchvision", "numpy", "prefect", "mlflow", "dvc", "ollama")


def environment(root: Path) -> dict[str, str]:
    """Return flat facts: git.commit, git.dirty ("true", "false", "unknown"), python, platform, cpu, cpus, threads, version.<package>.

    git.why: only without a commit, why there is none.
    """
    code = git.checkout(root)
    return {
        "git.commit": code.commit or "unknown",
        "git.dirty": "unknown" if code.dirty is None else str(code.dirty).lower(),
        # Without git's own message, which may name folders.
        **({"git.why": code.why.partition(":")[0]} if code.why else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **{f"version.{name}": package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str:
    """Return the installed version, "absent" without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


@cache
def cpu_model() -> str:
    """Return the processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
