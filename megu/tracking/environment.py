"""What a run was run on: code, versions, machine. Read from metadata; nothing heavy is imported."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("megu", "torch", "torchvision", "numpy", "prefect", "mlflow", "dvc", "ollama")


def environment(root: Path) -> dict[str, str]:
    """Flat facts: git.commit, git.dirty ("true", "false", "unknown"), python, platform, cpu, cpus, threads, version.<package>."""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain")
    return {
        "git.commit": commit or "unknown",
        "git.dirty": "unknown" if commit is None or changed is None else str(bool(changed)).lower(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        **{f"version.{name}": package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str:
    """The installed version, "absent" without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


@cache
def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
