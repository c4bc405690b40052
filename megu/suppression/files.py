"""Checking image files, or a data set's folder, against a suppression list."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from megu.core.errors import MeguError
from megu.data import arrays
from megu.data.arrays import SPLITS, Images
from megu.data.images.clutter import clutter
from megu.data.images.decoding import readable
from megu.data.images.files import files_in
from megu.data.images.layout import IMAGES
from megu.suppression.listed import SuppressionList
from megu.suppression.record import Header

#: Pixels of images of one size that are checked together.
_TOGETHER = 1 << 24


@dataclass(frozen=True)
class Row:
    """An image that is on the list. verdict: "certain" or "suspected"."""

    name: str
    verdict: str
    header: Header


@dataclass(frozen=True)
class Checked:
    """images: how many were checked. rows: those on the list. unreadable: files with an image suffix that are not images, and what
    cannot be opened."""

    images: int
    rows: list[Row]
    unreadable: list[str]

    def count(self, verdict: str) -> int:
        return sum(row.verdict == verdict for row in self.rows)


def check_files(listed: SuppressionList, source: Path) -> Checked:
    """Check every image below a folder or in an archive, wherever it lies there, or every row of a data set's folder.

    Raises `MeguError` for a source that is neither, or has no images.
    """
    rows, unreadable, count = list[Row](), list[str](), 0
    with ExitStack() as stack:
        for names, images in _data_set(source) if (source / "meta.json").is_file() else _batches(source, stack, unreadable):
            found = listed.find(images)
            for verdict, numbers in (("certain", found.certain), ("suspected", found.suspected)):
                rows += [Row(names[at], verdict, listed.headers[numbers[at]]) for at in np.flatnonzero(numbers >= 0)]
            count += len(images)
    if not count and not unreadable:
        raise MeguError(f"{source} has no images", "name a folder or an archive of image files, or a data set's folder")
    return Checked(count, sorted(rows, key=lambda row: (row.verdict, row.name)), unreadable)


def _data_set(source: Path) -> Iterator[tuple[list[str], Images]]:
    dataset = arrays.load(source)
    for split in SPLITS:
        part = getattr(dataset, split)
        named = [value.decode() for value in part.names] if part.names is not None else [str(at) for at in range(len(part))]
        yield [f"{split}/{name}" for name in named], part.images


def _batches(source: Path, stack: ExitStack, unreadable: list[str]) -> Iterator[tuple[list[str], Images]]:
    """Yield images of one size at a time, with the names of their files."""
    waiting: dict[tuple[int, ...], tuple[list[str], list[Images]]] = {}
    with warnings.catch_warnings(action="ignore"):  # Pillow's, about files that it reads all the same
        for file in files_in([source], stack):
            path = PurePosixPath(file.name)
            if clutter(path.parts) or (not file.problem and (file.folder or path.suffix.lower() not in IMAGES)):
                continue
            found = file.problem or readable(file.read, None)
            if isinstance(found, str):
                unreadable.append(file.name)
                continue
            names, images = waiting.setdefault(found[0].shape, ([], []))
            names.append(file.name)
            images.append(found[0])
            if len(images) * found[0].size >= _TOGETHER:
                yield names, np.stack(images)
                del waiting[found[0].shape]
    yield from ((names, np.stack(images)) for names, images in waiting.values())
