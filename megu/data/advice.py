"""Advice about a data set that is damaged or not as pinned; none of it can lose the only copy."""

from __future__ import annotations

from pathlib import Path

from megu.data import dvc, pins
from megu.data.arrays import FILES
from megu.data.naming import shown
from megu.data.pins import DirHash

#: How many files a message names.
_SHOWN = 3


def strays(path: Path) -> list[str]:
    """Return the files in a data set's folder that do not belong to it, without system clutter; relative to the folder."""
    return sorted(set(pins.files_of(path)) - FILES)


def beside(name: str, files: list[str]) -> str:
    """Return the message that a data set's folder has files that do not belong to it."""
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"data/{name} has files that do not belong to the data set: {', '.join(map(shown, files[:_SHOWN]))}{more}"


def difference(root: Path, name: str, pin: DirHash, actual: DirHash) -> tuple[str, str]:
    """Return how ``data/<name>`` differs from its pin, and what to do about it."""
    folder = root / "data" / name
    if (more := strays(folder)) and pins.hash_dir(folder, root, only=FILES).md5 == pin.md5:
        return beside(name, more), f"move them out of data/{name}; all else is as pinned"
    what = f"data/{name} is damaged or another data set than data.dvc has under its name: expected {pin.md5}, got {actual.md5}"
    return what, mend(root, name, pin)


def mend(root: Path, name: str, pin: DirHash | None) -> str:
    """Return what to do about a data set that is damaged or not as pinned."""
    if comes_again(root, name, pin):
        return f"move data/{name} aside, do not delete it, and run `megu data fetch {name}`"
    return (
        f"keep data/{name}, it may be the only copy: bring back the data.dvc that belongs to it (`git log data.dvc`), or add its images "
        "under another name (`megu data add`)"
    )


def comes_again(root: Path, name: str, pin: DirHash | None) -> bool:
    """Return whether a data set can be fetched again, with a pin to prove that it is the same one."""
    from megu.data.sources import downloads

    return pin is not None and (name in downloads.names() or dvc.in_cache(root, pin) or dvc.has_remote(root))
