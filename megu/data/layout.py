"""How a file's path says which sample it is: ``train/<class>/<image>`` and ``test/<class>/<image>``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from megu.errors import MeguError

SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Sample:
    """One image file. where: as messages name it."""

    split: str
    folder: str
    label: str
    file: str
    size: int
    where: str
    read: Callable[[], bytes]

    @property
    def key(self) -> str:
        return f"{self.label}/{self.file}"

    @property
    def stem(self) -> str:
        return f"{self.label}/{PurePosixPath(self.file).stem}"


def names(entries: Sequence[Sample]) -> list[str]:
    """The name of each sample: class and file, without the ending unless another file of the class differs in that alone."""
    often = Counter(entry.stem for entry in entries)
    return [entry.stem if often[entry.stem] == 1 else entry.key for entry in entries]


def sample(where: str, name: str, size: int, read: Callable[[], bytes]) -> Sample | None:
    """The sample that a file is, or None for files that are none (a README, a hidden file)."""
    parts = PurePosixPath(name).parts
    if parts[-1].startswith((".", "__MACOSX")) or "__MACOSX" in parts or PurePosixPath(name).suffix.lower() not in IMAGES:
        return None
    if len(parts) < 3 or parts[-3] not in SPLIT_FOLDERS:
        raise MeguError(f"{where} is not in a class folder", "lay images out as train/<class>/<image> and test/<class>/<image>")
    return Sample(SPLIT_FOLDERS[parts[-3]], parts[-3], parts[-2], parts[-1], size, where, read)
