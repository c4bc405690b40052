"""Tell from a file's path which sample it is: ``train/<class>/<image>`` and ``test/<class>/<image>``.

Names are brought to one spelling, and names that a later step could not write, request or show are refused here (`megu.data.naming`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from megu.core.errors import MeguError
from megu.data.images.clutter import clutter
from megu.data.naming import nfc, shown, unusable, unusable_class
from megu.data.superclasses import SUPERCLASSES

SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
IMAGES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz")
#: Archives that cannot be opened here.
_OTHER_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tzst", ".tar.lz", ".tar.z", ".tar.lzma")


#: The largest size in bytes of an image file; a larger one is not read.
LARGEST = 1 << 29


@dataclass(frozen=True)
class File:
    """A file in a folder or an archive.

    Attributes
    ----------
    where: its name in messages.
    name: its path inside the source, with "/".
    size: in bytes, unpacked.
    read: returns its bytes.
    problem: why it cannot be used at all, "" for a file that can be read.
    folder: whether it is a folder; then there is nothing to read.
    """

    where: str
    name: str
    size: int
    read: Callable[[], bytes]
    problem: str = ""
    folder: bool = False


def is_archive(name: str) -> bool:
    """Return whether a name is that of an archive, one that can be opened or not."""
    return name.lower().endswith((*ARCHIVES, *_OTHER_ARCHIVES))


def can_be_sample(name: str) -> bool:
    """Return whether a file with this name is ever read."""
    path = PurePosixPath(name)
    return clutter(path.parts) is None and (path.suffix.lower() in IMAGES or path.name == SUPERCLASSES)


@dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes
    ----------
    split: "train" or "test". folder: the folder that says so.
    label, file: the names of class folder and file.
    size, where, read: see `File`.
    """

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

    @property
    def path(self) -> str:
        """The path inside the data set, wherever the data set is."""
        return f"{self.folder}/{self.key}"


def sample(file: File) -> Sample | None:
    """Return a file as a sample, or None for a file that is not a sample (a README).

    Raises `MeguError` for an image outside a class folder, an archive inside the data set, or an unusable name.
    """
    path = PurePosixPath(file.name)
    if file.problem:
        raise MeguError(f"{shown(file.where)} {file.problem}", "put the file itself there, unpack the archive, or remove it")
    if is_archive(path.name):
        raise MeguError(
            f"{shown(file.where)} is an archive inside the data set", "unpack it, or give it as a source of its own"
        )
    if path.suffix.lower() not in IMAGES:
        return None
    if ".." in path.parts:
        raise MeguError(f"{shown(file.where)} has '..' in its name", "pack the files by their own paths")
    if not in_class_folder(file.name):
        raise MeguError(
            f"{shown(file.where)} is not in a class folder", "lay images out as train/<class>/<image> and test/<class>/<image>"
        )
    folder, label, name = path.parts[-3:]
    for kind, reason in (("class folder", unusable_class(label)), ("file", unusable(name))):
        if reason:
            raise MeguError(f"{shown(file.where)}: the {kind}'s name {reason}", "rename it")
    return Sample(SPLIT_FOLDERS[folder.lower()], folder, nfc(label), nfc(name), file.size, file.where, file.read)


def in_class_folder(name: str) -> bool:
    """Return whether a file is where images belong."""
    parts = PurePosixPath(name).parts
    return len(parts) > 2 and parts[-3].lower() in SPLIT_FOLDERS


def names(samples: Sequence[Sample]) -> list[str]:
    """Return the name of each sample: class and file, without the extension unless another file of the class differs only in that."""
    often = Counter(entry.stem for entry in samples)
    return [entry.stem if often[entry.stem] == 1 else entry.key for entry in samples]
