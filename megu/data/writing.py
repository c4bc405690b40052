"""Write the files of a data set so that equal values give equal bytes and nothing is ever half written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.files import temporary

#: Pixels that are processed together; limits the memory.
_CHUNK_PIXELS = 1 << 22


def chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Split (N, H, W, C) into runs of rows of bounded size."""
    size = max(_CHUNK_PIXELS // max(int(np.prod(images.shape[1:])), 1), 1)
    return (images[start : start + size] for start in range(0, len(images), size))


class ImageWriter:
    """Append images to a ``.npy`` file, so that no more than one batch is ever in memory.

    Grey images are stored with one channel until the first colour image arrives; then all have three. The file has the bytes that
    `write_array` would write for the whole array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape = (0, 0, 0, 0)
        self._file = path.open("wb")

    def append(self, images: NDArray[np.uint8]) -> None:
        """Add (B, H, W, C) images, of the same size as the first."""
        if not len(images):
            return
        if not self.shape[0]:
            self.shape = (0, *images.shape[1:])
            self._header()
        if images.shape[3] > self.shape[3]:
            self.widen()
        elif images.shape[3] < self.shape[3]:
            images = np.repeat(images, self.shape[3], axis=3)
        self._file.write(np.ascontiguousarray(images).view(np.uint8).data)
        self.shape = (self.shape[0] + len(images), *self.shape[1:])

    def widen(self) -> None:
        """Repeat the one channel three times."""
        self.close()
        narrow = self.path.with_suffix(".narrow")
        self.path.rename(narrow)
        before: NDArray[np.uint8] = np.load(narrow, mmap_mode="r", allow_pickle=False)
        self._file = self.path.open("wb")
        self.shape = (len(before), *before.shape[1:3], 3)
        self._header()
        for rows in chunks(before):
            self._file.write(np.repeat(rows, 3, axis=3).data)
        narrow.unlink()

    def _header(self) -> None:
        # NumPy leaves room for the count to grow, so the header can be overwritten in place.
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def close(self) -> None:
        if self._file.closed:
            return
        self._file.seek(0)
        self._header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Open a temporary folder beside ``path`` that replaces it when the block succeeds and is deleted when it fails.

    Raises
    ------
    MeguError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_errors_answered(path), temporary.folder(path.parent, f".{path.name}-") as scratch:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        if path.exists():
            path.rename(scratch / "old")
        folder.rename(path)


@contextmanager
def write_errors_answered(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission while writing ``path`` into a `MeguError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = error.filename or path
            raise MeguError(f"{where} cannot be written ({error.strerror})", "run as a user who may write there") from error
        if is_disk_full(error):
            raise MeguError(f"the disk is full: {path} could not be written", "free some space and run again") from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error is the system's "no space left" or "quota exceeded"."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``.npy`` format 1.0, whose bytes depend only on the array, and flush it to disk.

    The values go through Python's file object, because NumPy's own writer reports a full disk without its error number.
    """
    values = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
        file.write(values.view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys, so equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
