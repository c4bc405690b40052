"""Whether a project can be written, tried before anything is computed; and what a failed write means, in one line."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from shlex import quote

from megu.core.errors import MeguError, chain

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
#: Written as a trial: a disk that takes less is full.
_TRIED = bytes(1 << 16)


def refuse_unwritable(*folders: Path) -> None:
    """Raise `MeguError` for a folder in which no file can be created, or that cannot be created itself. Leaves nothing behind."""
    for folder in folders:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(_TRIED)
                file.flush()
        except OSError as error:
            raise explained(error, there) or error from None


def explained(error: BaseException, path: Path) -> MeguError | None:
    """Return what a failed write of ``path`` means for a person; None if neither the disk nor a permission is the cause."""
    where = Path(os.fsdecode(getattr(error, "filename", None) or path))
    if disk_is_full(error):
        return MeguError(f"the disk is full: {path} could not be written", "free some space on its disk and run again")
    number = getattr(error, "errno", None)
    if number == errno.EROFS:
        return MeguError(
            f"{path} cannot be written: its file system is read-only",
            "have it mounted for writing, or work in a copy elsewhere",
        )
    if number == errno.ENOTDIR or (number is not None and not path.is_dir() and number == errno.EEXIST):
        # A device is not something to move away.
        fix = f"mv {quote(str(path))} {quote(f'{path}.old')}" if path.is_file() else "name another place"
        return MeguError(f"{path} is a file where a folder is needed", fix)
    if number in _REFUSED:
        return MeguError(
            f"{path} cannot be written ({os.strerror(number)})",
            f"run as its owner, or make it yours: sudo chown -R $USER {quote(str(path))}",
        )
    if number == errno.ENOENT:
        return MeguError(f"{where} is gone", "find out what removed it, then run again")
    return None


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is the cause: Prefect's and MLflow's databases report it in their own words."""
    return any(
        getattr(found, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(found)
        for found in chain(error, hidden=True)
    )
