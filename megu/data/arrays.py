"""A data set as a folder of plain arrays, loaded by memory map.

``data/<name>/`` holds, for each split ("train", "test"), ``<split>_images.npy`` (uint8, N x H x W x C), ``<split>_labels.npy``
(int64, N) and ``<split>_ids.npy`` (32 ASCII characters, N), and one ``meta.json``. A set that came as files has their names in
``<split>_names.npy`` (UTF-8, N), a set labelled by superclass the finer labels in ``<split>_fine.npy`` (int64, N). The same samples
in the same order give the same bytes wherever and whenever they are written, so one hash pins the folder.

Nothing here holds a whole set in memory: images are written as they arrive (`ImageWriter`) and read through the memory map.

One file because what is written here is read here, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.progress import track
from megu.data.images.repeats import repeats
from megu.data.naming import nfc
from megu.data.writing import atomic_folder, chunks, write_array, write_json

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Ids = NDArray[np.bytes_]

SPLITS = ("train", "test")
_FORMAT = 1
_META_KEYS = {"format", "name", "classes", "coarse", "mean", "std", "source", "licence", "splits"}
#: Keys that are present only when they have content, so that a set without them keeps the bytes it always had.
NOTES = {"left_out", "ignored", "converted", "repeated"}
_META_MORE = {"fine", "resized", "reduced"} | NOTES
#: All files that a data set's folder may contain.
FILES = frozenset(
    {"meta.json", *(f"{split}_{column}.npy" for split in SPLITS for column in ("images", "labels", "ids", "fine", "names"))}
)


@dataclass(frozen=True)
class Partition:
    """One split of a data set.

    Attributes
    ----------
    images: uint8 (N, H, W, C), a read-only memory map.
    labels: int64 (N,), indices into ``Dataset.classes``.
    ids: bytes "S32" (N,), the hex BLAKE2b-128 of each image's bytes: the content only, so an id survives any reordering or
        growth of the data set, and equal images share one id.
    fine: int64 (N,), indices into ``Dataset.fine``, of a set labelled by superclass; else None.
    names: bytes (N,), "class/file" in UTF-8 without the file extension, of a set that came as files; else None. Files of one class
        that differ only in their extensions keep them.
    """

    images: Images
    labels: Labels
    ids: Ids
    fine: Labels | None = None
    names: Ids | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A labelled image data set; the module's docstring describes its form on disk.

    Attributes
    ----------
    classes: the name of each label.
    coarse: the superclass name of each class, or None when the data set has none.
    fine: the names of the finer classes that ``Partition.fine`` indexes, where ``classes`` are superclasses; else None.
    resized, reduced, left_out, ignored, converted: see `Facts`.
    repeated: see `megu.data.images.repeats`; empty unless the set came as files.
    mean, std: per channel, of the train images scaled to [0, 1], rounded to 4 digits.
    limit: how many training images of each class are used (`limited`); None for the whole set.
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
    fine: tuple[str, ...] | None = None
    resized: str = ""
    reduced: str = ""
    left_out: tuple[str, ...] = ()
    limit: int | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Open a data set folder by memory map; raises as `load` does."""
        return load(Path(path))

    @classmethod
    def of(
        cls,
        train: tuple[NDArray[Any], NDArray[Any]],
        test: tuple[NDArray[Any], NDArray[Any]],
        classes: Sequence[str] | None = None,
        *,
        name: str = "arrays",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Dataset:
        """Make a data set from arrays in memory; nothing is written to disk.

        Parameters
        ----------
        train, test: images, uint8 (N, H, W, C) or grey (N, H, W), and their labels, int (N,).
        classes: the name of each label; the label numbers when omitted.
        mean, std: the values that normalise the model's input, one per channel of images scaled to [0, 1]; those of the training images
            when omitted.

        Raises
        ------
        MeguError: the arrays do not fit together.
        """
        parts = [_partition(split, *part) for split, part in zip(SPLITS, (train, test), strict=True)]
        count = 1 + max(int(part.labels.max(initial=-1)) for part in parts)
        names = _spelt([str(number) for number in range(count)] if classes is None else classes)
        shapes = [part.images.shape[1:] for part in parts]
        if shapes[0] != shapes[1]:
            raise MeguError(
                f"train images are {shapes[0]}, test images {shapes[1]}", "bring all to one height, width and channels"
            )
        if count > len(names):
            raise MeguError(f"label {count - 1} is beyond the {len(names)} names in classes", "name every class")
        moments = channel_statistics(parts[0].images)
        mean, std = (tuple(own or found) for own, found in zip((mean, std), moments, strict=True))
        if {len(mean), len(std)} != {shapes[0][2]}:
            raise MeguError(f"mean and std have {len(mean)} and {len(std)} values", f"give {shapes[0][2]} each, one a channel")
        return cls(name, Path(), names, None, mean, std, "", "", parts[0], parts[1])

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


def _partition(split: str, images: NDArray[Any], labels: NDArray[Any]) -> Partition:
    """Make a split from arrays in memory; raise `MeguError` where they are not labelled images."""
    pixels, numbers = np.asarray(images), np.asarray(labels)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not len(pixels):
        raise MeguError(f"{split} images are {pixels.dtype} {pixels.shape}", "give uint8 (N, H, W, C), or grey (N, H, W)")
    if numbers.shape != pixels.shape[:1] or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise MeguError(f"{split} labels are {numbers.dtype} {numbers.shape}", f"give {len(pixels)} integers from 0 up")
    return Partition(pixels, numbers.astype(np.int64), image_ids(pixels))


def image_ids(images: Images) -> Ids:
    """Return the content hash of each image: uint8 (N, H, W, C) -> "S32" (N,)."""
    digests = [blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest().encode() for image in images]
    return np.array(digests, dtype="S32")


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 (N, H, W, C) images scaled to [0, 1], rounded to 4 digits.

    The sums are integers over the histogram, so the result does not depend on the order of a floating-point sum.
    """
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for rows in chunks(images):
        for channel in range(images.shape[3]):
            counts[channel] += np.bincount(rows[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for values in counts.tolist():
        total = sum(values)
        first = sum(value * n for value, n in enumerate(values))
        second = sum(value * value * n for value, n in enumerate(values))
        mean.append(round(first / total / 255, 4))
        std.append(round((total * second - first * first) ** 0.5 / total / 255, 4))
    return tuple(mean), tuple(std)


@dataclass(frozen=True)
class Facts:
    """The contents of `meta.json` besides the shapes. fine: see `Dataset`. resized: what was done to images of another size, in words.

    reduced: which part of the source was taken, in words. left_out: the files that could not be read and why, each as "file: reason".
    ignored, converted: how many non-image files were left out, and how many images were converted, by kind. count_repeats: whether to count
    images that occur twice.
    """

    name: str
    classes: Sequence[str]
    coarse: Sequence[str] | None = None
    source: str = ""
    licence: str = ""
    fine: Sequence[str] | None = None
    resized: str = ""
    reduced: str = ""
    left_out: Sequence[str] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    count_repeats: bool = False


@dataclass(frozen=True)
class Columns:
    """The values that belong to each image of a split, see `Partition`."""

    labels: Labels
    fine: Labels | None = None
    names: Sequence[str] | None = None


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
    """Write a data set folder from arrays and load it back; see `save_columns`."""
    facts = Facts(name, classes, coarse, source, licence)
    columns = {split: Columns(labels) for split, (_, labels) in zip(SPLITS, (train, test), strict=True)}
    return save_columns(path, facts, dict(zip(SPLITS, (train[0], test[0]), strict=True)), columns)


def save_columns(path: Path, facts: Facts, images: Mapping[str, Images], columns: Mapping[str, Columns]) -> Dataset:
    """Write a data set folder and load it back; ids, mean and std are computed here. Images may be memory maps of any size.

    The folder appears complete or not at all. An existing folder at ``path`` is replaced.

    Raises
    ------
    MeguError: the arrays do not fit together, or the disk is full.
    """
    with atomic_folder(path) as folder:
        for split in SPLITS:
            write_array(folder / f"{split}_images.npy", np.asarray(images[split], dtype=np.uint8))
        complete(folder, facts, columns)
    return load(path)


def complete(folder: Path, facts: Facts, columns: Mapping[str, Columns]) -> None:
    """Turn a folder that has the images of both splits into a data set."""
    images: dict[str, Images] = {
        split: np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False) for split in SPLITS
    }
    mean, std = channel_statistics(images["train"])
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "name": facts.name,
        "classes": list(facts.classes),
        "coarse": None if facts.coarse is None else list(facts.coarse),
        "mean": list(mean),
        "std": list(std),
        "source": facts.source,
        "licence": facts.licence,
        "splits": {split: list(images[split].shape) for split in SPLITS},
    }
    ids: dict[str, Ids] = {}
    with track(f"write {facts.name}", total=sum(map(len, images.values())), unit="images") as advance:
        for split, column in columns.items():
            write_array(folder / f"{split}_labels.npy", np.asarray(column.labels, dtype=np.int64))
            if column.fine is not None:
                write_array(folder / f"{split}_fine.npy", np.asarray(column.fine, dtype=np.int64))
            if column.names is not None:
                write_array(folder / f"{split}_names.npy", np.array([name.encode() for name in column.names]))
            found = [np.empty(0, dtype="S32")]
            for rows in chunks(images[split]):
                found.append(image_ids(rows))
                advance(len(rows))
            ids[split] = np.concatenate(found)
            write_array(folder / f"{split}_ids.npy", ids[split])
    more = {
        "fine": facts.fine and list(facts.fine),
        "resized": facts.resized,
        "reduced": facts.reduced,
        "left_out": list(facts.left_out),
        "ignored": facts.ignored,
        "converted": facts.converted,
        "repeated": repeats(ids, {split: column.labels for split, column in columns.items()}) if facts.count_repeats else {},
    }
    write_json(folder / "meta.json", meta | {key: value for key, value in more.items() if value})
    load(folder)


def load(path: Path) -> Dataset:
    """Open a data set folder by memory map.

    Raises
    ------
    MeguError: the folder does not exist, or files are missing, truncated or do not fit ``meta.json``. Changed pixels are not detected
        here; `megu.data.pins` does that by hash.
    """
    if not (path / "meta.json").is_file():
        raise MeguError(
            f"no data set in {path}", f"run `megu data fetch {path.name}`, or `megu data add` for images of your own"
        )
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or set(meta) - _META_MORE != _META_KEYS or meta["format"] != _FORMAT:
            raise ValueError("meta.json does not describe a data set of this version")
        fine = None if meta.get("fine") is None else _spelt(meta["fine"])
        train, test = (
            _load_partition(path, split, tuple(meta["splits"][split]), len(meta["classes"]), len(fine or ()))
            for split in SPLITS
        )
        if train.images.shape[1:] != test.images.shape[1:] or len(meta["mean"]) != train.images.shape[3]:
            raise ValueError("train, test and meta.json differ in image shape")
        if meta["coarse"] is not None and len(meta["coarse"]) != len(meta["classes"]):
            raise ValueError("meta.json has different numbers of coarse names and classes")
        return Dataset(
            name=meta["name"],
            path=path,
            classes=_spelt(meta["classes"]),
            coarse=None if meta["coarse"] is None else tuple(meta["coarse"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            source=meta["source"],
            licence=meta["licence"],
            train=train,
            test=test,
            fine=fine,
            resized=meta.get("resized", ""),
            reduced=meta.get("reduced", ""),
            left_out=tuple(meta.get("left_out", ())),
            ignored=dict(meta.get("ignored", {})),
            converted=dict(meta.get("converted", {})),
            repeated=dict(meta.get("repeated", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise MeguError(
            f"the data set in {path} is damaged ({error})", "`megu data status` says what to do; keep the folder until then"
        ) from error


def _spelt(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names in the spelling that requests use; unchanged where that would merge two names of an older data set."""
    spelt = tuple(map(nfc, names))
    return spelt if len(set(spelt)) == len(spelt) else tuple(names)


def _load_partition(path: Path, split: str, shape: tuple[int, ...], num_classes: int, num_fine: int) -> Partition:
    images = _map(path / f"{split}_images.npy", np.dtype(np.uint8), shape)
    labels = _map(path / f"{split}_labels.npy", np.dtype(np.int64), shape[:1])
    ids = _map(path / f"{split}_ids.npy", np.dtype("S32"), shape[:1])
    if len(shape) != 4 or shape[0] == 0:
        raise ValueError(f"{split} has no images of shape (N, H, W, C)")
    _within(labels, num_classes, f"{split}_labels.npy")
    fine = _map(path / f"{split}_fine.npy", np.dtype(np.int64), shape[:1]) if num_fine else None
    if fine is not None:
        _within(fine, num_fine, f"{split}_fine.npy")
    named = path / f"{split}_names.npy"
    return Partition(images, labels, ids, fine, _map(named, None, shape[:1]) if named.exists() else None)


def _within(labels: Labels, count: int, file: str) -> None:
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"{file} has a class number beyond the {count} classes of meta.json")


def _map(path: Path, dtype: np.dtype[Any] | None, shape: tuple[int, ...]) -> Any:
    """Return the array in a file, which must have this type (None: bytes of any length) and shape."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if (array.dtype != dtype if dtype else array.dtype.kind != "S") or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {dtype or 'names'} {shape}")
    return array


def set_out(dataset: Dataset, subclasses: Sequence[str]) -> Dataset:
    """Return the same images with each named finer class as a class of its own, after the existing classes, so that the appearance of its
    former class no longer includes it. Positions and ids stay the same.

    Raises ``ValueError`` for a name that is not a finer class.
    """
    assert dataset.fine is not None, "a data set of finer classes"
    rows = {dataset.fine.index(name): dataset.num_classes + at for at, name in enumerate(subclasses)}

    def labelled(part: Partition) -> Partition:
        assert part.fine is not None
        labels = np.array(part.labels)
        for finer, row in rows.items():
            labels[np.asarray(part.fine) == finer] = row
        return replace(part, labels=labels)

    classes = (*dataset.classes, *subclasses)
    return replace(dataset, classes=classes, train=labelled(dataset.train), test=labelled(dataset.test))


def coarse_view(dataset: Dataset) -> Dataset:
    """Return the same images labelled by superclass (CIFAR-100 -> CIFAR-20), with the original labels as ``fine``; positions and ids stay.

    Superclasses are numbered in alphabetical order.

    Raises
    ------
    MeguError: the data set has no coarse names.
    """
    if dataset.coarse is None:
        raise MeguError(
            f"data set {dataset.name!r} has no superclasses", "add it with --superclasses FILE, or choose another data set"
        )
    names, to_coarse = superclass_labels(dataset.coarse)
    train, test = (replace(part, labels=to_coarse[part.labels], fine=part.labels) for part in (dataset.train, dataset.test))
    return replace(dataset, classes=names, coarse=None, fine=dataset.classes, train=train, test=test)


def superclass_labels(coarse: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    """Return the superclasses in alphabetical order, and for each class, given its superclass name, the number of its superclass."""
    names = tuple(sorted(set(coarse)))
    return names, np.array([names.index(name) for name in coarse], dtype=np.int64)


def save_view(path: Path, view: Dataset, name: str) -> Dataset:
    """Write a data set derived from another one, under its own name."""
    parts = {"train": view.train, "test": view.test}
    columns = {
        split: Columns(part.labels, part.fine, None if part.names is None else [n.decode() for n in part.names])
        for split, part in parts.items()
    }
    facts = Facts(
        *(name, view.classes, view.coarse, view.source, view.licence, view.fine, view.resized, view.reduced, view.left_out),
        ignored=view.ignored,
        converted=view.converted,
        count_repeats=bool(view.repeated),
    )
    return save_columns(path, facts, {split: part.images for split, part in parts.items()}, columns)


def limited(dataset: Dataset, per_class: int | None) -> Dataset:
    """Keep at most ``per_class`` training images of each class, in their old order; None leaves the data set unchanged.

    The images with the smallest ids are kept. An id is a hash of the image, so the choice looks random. It does not depend on the order of
    the data set, and growth changes it only where a new image sorts earlier. Test images, mean and standard deviation stay those of the
    whole set.
    """
    if per_class is None:
        return dataset
    train = dataset.train
    order = np.lexsort((train.ids, train.labels))  # by class, then by id; equal ids keep their order
    classes, starts = np.unique(train.labels[order], return_index=True)
    rank = np.arange(len(order)) - starts[np.searchsorted(classes, train.labels[order])]
    chosen = np.sort(order[rank < per_class])
    kept = {name: entry[chosen] for name, entry in vars(train).items() if isinstance(entry, np.ndarray)}
    return replace(dataset, train=replace(train, **kept), limit=per_class)
