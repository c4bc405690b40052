"""Commands that run where a folder is a small file system of its own, or cannot be written: for real, for that command alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def _works() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


#: Whether this machine lets a test make mounts that nobody else sees.
UNSHARED = _works()


def on_a_small_disk(
    folder: Path, size: str, command: Sequence[str], *, after: str = "true", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command while ``folder`` is an empty file system of that size, such as "300k"; then the shell's ``after``, there too."""
    return _mounted(f'mount -t tmpfs -o size={size} none "$1"', folder, command, after, environment)


def read_only(
    folder: Path, command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command while nothing in ``folder`` can be written, by whoever runs it."""
    return _mounted('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', folder, command, "true", environment)


def _mounted(
    mount: str, folder: Path, command: Sequence[str], after: str, environment: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    program = f'{mount} || exit 125; cd "$1"; shift; "$@"; code=$?; {after}; exit $code'
    return subprocess.run(
        [*_UNSHARE, program, "sh", str(folder), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
