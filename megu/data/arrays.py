"""A data set as a folder of plain arrays, loaded by memory map.

``data/<name>/`` holds, for each split ("train", "test"), ``<split>_images.npy`` (uint8, N x H x W x C), ``<split>_labels.npy``
(int64, N) and ``<split>_ids.npy`` (32 ASCII characters, N), and one ``meta.json``. The same samples in the same order give the
same bytes wherever and whenever they are written, so one hash pins the folder.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.errors import MeguError
from megu.progress import track

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Ids = NDArray[np.bytes_]

SPLITS = ("train", "test")
_FORMAT = 1
_META_KEYS = {"format", "name", "classes", "coarse", "mean", "std", "source", "licence", "splits"}


@dataclass(frozen=True)
class Partition:
    """One split of a data set.

    Attributes
    ----------
    images: uint8 (N, H, W, C), a read-only memory map.
    labels: int64 (N,), indices into ``Dataset.classes``.
    ids: bytes "S32" (N,), the hex BLAKE2b-128 of each image's bytes: the content only, so an id survives any reordering or
        growth of the data set, and equal images share one id.
    """

    images: Images
    labels: Labels
    ids: Ids

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A labelled image data set; see the module for its form on disk.

    Attributes
    ----------
    classes: the name of each label.
    coarse: the superclass name of each class, or None when the data set has none.
    mean, std: per channel, of the train images scaled to [0, 1], rounded to 4 digits.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    coarse: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    train: Partition
    test: Partition

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[3])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.train.images.shape[1]), int(self.train.images.shape[2])


def image_ids(images: Images) -> Ids:
    """The content hash of each image: uint8 (N, H, W, C) -> "S32" (N,)."""
    digests = [blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest().encode() for image in images]
    return np.array(digests, dtype="S32")


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 (N, H, W, C) images in [0, 1], rounded to 4 digits.

    Summed in integers over the histogram, so the result does not depend on the order of a floating-point sum.
    """
    mean, std = [], []
    for channel in range(images.shape[3]):
        counts = [int(n) for n in np.bincount(images[..., channel].ravel(), minlength=256)]
        total = sum(counts)
        first = sum(value * n for value, n in enumerate(counts))
        second = sum(value * value * n for value, n in enumerate(counts))
        mean.append(round(first / total / 255, 4))
        std.append(round((total * second - first * first) ** 0.5 / total / 255, 4))
    return tuple(mean), tuple(std)


def save(
    path: Path,
    *,
    name: str,
    classes: Sequence[str],
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    coarse: Sequence[str] | None = None,
    source: str = "",
    licence: str = "",
) -> Dataset:
    """Write a data set folder and load it back; ids, mean and std are computed here.

    The folder appears complete or not at all. An existing folder at ``path`` is replaced.

    Raises
    ------
    MeguError: arrays that do not fit together, or a full disk.
    """
    mean, std = channel_statistics(train[0])
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "name": name,
        "classes": list(classes),
        "coarse": None if coarse is None else list(coarse),
        "mean": list(mean),
        "std": list(std),
        "source": source,
        "licence": licence,
        "splits": {split: list(images.shape) for split, (images, _) in zip(SPLITS, (train, test), strict=True)},
    }
    with atomic_folder(path) as folder, track(f"write {name}", total=len(SPLITS), unit="splits") as advance:
        for split, (images, labels) in zip(SPLITS, (train, test), strict=True):
            write_array(folder / f"{split}_images.npy", np.asarray(images, dtype=np.uint8))
            write_array(folder / f"{split}_labels.npy", np.asarray(labels, dtype=np.int64))
            write_array(folder / f"{split}_ids.npy", image_ids(images))
            advance(1)
        write_json(folder / "meta.json", meta)
        load(folder)
    return load(path)


def load(path: Path) -> Dataset:
    """Open a data set folder by memory map.

    Raises
    ------
    MeguError: no such folder, or files that are missing, cut short, or do not fit ``meta.json``. Changed pixels are not looked
        for here; `megu.data.pins` does that by hash.
    """
    if not (path / "meta.json").is_file():
        raise MeguError(f"no data set in {path}", "run `megu data fetch`")
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or set(meta) != _META_KEYS or meta["format"] != _FORMAT:
            raise ValueError("meta.json does not describe a data set of this version")
        train, test = (_load_partition(path, split, tuple(meta["splits"][split]), len(meta["classes"])) for split in SPLITS)
        if train.images.shape[1:] != test.images.shape[1:] or len(meta["mean"]) != train.images.shape[3]:
            raise ValueError("train, test and meta.json differ in image shape")
        if meta["coarse"] is not None and len(meta["coarse"]) != len(meta["classes"]):
            raise ValueError("meta.json has another number of coarse names than of classes")
        return Dataset(
            name=meta["name"],
            path=path,
            classes=tuple(meta["classes"]),
            coarse=None if meta["coarse"] is None else tuple(meta["coarse"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            source=meta["source"],
            licence=meta["licence"],
            train=train,
            test=test,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise MeguError(
            f"the data set in {path} is damaged ({error})", "delete the folder and run `megu data fetch`"
        ) from error


def _load_partition(path: Path, split: str, shape: tuple[int, ...], num_classes: int) -> Partition:
    images = _map(path / f"{split}_images.npy", np.dtype(np.uint8), shape)
    labels = _map(path / f"{split}_labels.npy", np.dtype(np.int64), shape[:1])
    ids = _map(path / f"{split}_ids.npy", np.dtype("S32"), shape[:1])
    if len(shape) != 4 or shape[0] == 0:
        raise ValueError(f"{split} has no images of shape (N, H, W, C)")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{split}_labels.npy names a class beyond the {num_classes} of meta.json")
    return Partition(images, labels, ids)


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {dtype} {shape}")
    return array


def coarse_view(dataset: Dataset) -> Dataset:
    """The same images labelled by superclass (CIFAR-100 -> CIFAR-20); positions and ids stay.

    Superclasses are numbered in alphabetical order. A sub-class request is split on the fine data set and trained on this one.

    Raises
    ------
    MeguError: the data set has no coarse names.
    """
    if dataset.coarse is None:
        raise MeguError(f"data set {dataset.name!r} has no superclasses", "choose another scenario or data set")
    names = tuple(sorted(set(dataset.coarse)))
    to_coarse = np.array([names.index(name) for name in dataset.coarse], dtype=np.int64)
    train, test = (replace(part, labels=to_coarse[part.labels]) for part in (dataset.train, dataset.test))
    return replace(dataset, classes=names, coarse=None, train=train, test=test)


def limited(dataset: Dataset, per_class: int | None) -> Dataset:
    """At most ``per_class`` training images of each class, in their old order; None leaves the data set as it is.

    Those whose ids come first are kept: an id is a hash of the image, so the choice looks random, and neither the order nor the growth of
    the data set changes it but for what is new and sorts earlier. Test images, mean and standard deviation stay those of the whole set.
    """
    if per_class is None:
        return dataset
    train = dataset.train
    order = np.lexsort((train.ids, train.labels))  # by class, then by id; equal ids stay in their order
    classes, starts = np.unique(train.labels[order], return_index=True)
    rank = np.arange(len(order)) - starts[np.searchsorted(classes, train.labels[order])]
    chosen = np.sort(order[rank < per_class])
    kept = {name: entry[chosen] for name, entry in vars(train).items() if isinstance(entry, np.ndarray)}
    return replace(dataset, train=replace(train, **kept))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that replaces it when the block succeeds and vanishes when it fails.

    Raises
    ------
    MeguError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_errors_answered(path):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            folder = temporary / "new"
            folder.mkdir()
            yield folder
            if path.exists():
                path.rename(temporary / "old")
            folder.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    """Whether an error is the system's "no space left" or "quota exceeded"."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``.npy`` format 1.0, whose bytes depend on the array only, and flush it to disk.

    The values go through Python's file: NumPy's own writer reports a full disk without its error number.
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
