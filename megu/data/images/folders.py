"""Turn class folders of image files into a data set's arrays."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from megu.core.errors import MeguError
from megu.core.progress import track
from megu.data.arrays import (
    SPLITS,
    Columns,
    Dataset,
    Facts,
    Images,
    complete,
    load,
    superclass_labels,
)
from megu.data.images.clutter import clutter
from megu.data.images.decoding import readable
from megu.data.images.files import files_in
from megu.data.images.layout import LARGEST, Sample, in_class_folder, names, sample
from megu.data.images.notes import Notes
from megu.data.images.packing import Packing, reduced
from megu.data.naming import nfc, shown
from megu.data.superclasses import SUPERCLASSES, coarse_names, parse_superclasses
from megu.data.writing import ImageWriter, atomic_folder

#: Files read and decoded together.
_BATCH = 256
#: Average bytes per file above which decoding in threads is faster: on two cores threads took 1.7 times as long for CIFAR's 2 kB
#: files, and less than half as long for JPEGs of 1200 x 900.
_THREADS_PAY = 16_384
#: How many images of such files are in memory at once: they may be large.
_TOGETHER = 16


def pack(
    path: Path,
    source: Path | Sequence[Path],
    facts: Facts,
    packing: Packing,
    *,
    described: bool = True,
    notes: Notes | None = None,
) -> Dataset:
    """Make a data set folder from ``train/<class>/<image>`` and ``test/<class>/<image>`` in a folder, an archive, or several of either.

    ``val/`` or ``valid/`` is used where there is no ``test/``.
    A folder may also hold archives that together are the data set (CIFAR-100 comes in three). A ``superclasses.json``
    ({superclass: [class, ...]}) beside the images gives the coarse names. Images become grey (one channel) when every file is
    grey, else RGB. Samples are in the order of their path names, so the same files give the same bytes however they were packed.
    At most one batch of images is in memory. ``facts`` has the name, source and licence; its other fields are filled in here.
    Files left out and images converted are counted in ``notes`` and, where the set is ``described``, in ``meta.json``: not for a set
    that must have the same bytes from every source.

    Raises
    ------
    MeguError: there is nothing, the layout is unknown, images differ in size without ``packing.size``, or too many cannot be read
        (they are named).
    """
    sources = [source] if isinstance(source, Path) else list(source)
    notes = notes or Notes()
    with ExitStack() as stack:
        splits, superclasses = _scan(sources, stack, notes)
        splits = _taken(splits, packing)
        _compare_classes(splits, notes)
        folder = stack.enter_context(atomic_folder(path))
        decoder = _Decoder(packing, sum(map(len, splits.values())), notes)
        kept = {split: decoder.write(folder / f"{split}_images.npy", entries) for split, entries in splits.items()}
        decoder.check_share()
        decoder.equalise()
        facts, columns = _described(kept, superclasses or packing.superclasses, facts, packing, decoder)
        if described:
            facts = replace(facts, ignored=dict(notes.ignored), converted=dict(notes.converted), count_repeats=True)
        complete(folder, facts, columns)
    return load(path)


class _Scan(NamedTuple):
    """The samples of each split in the order of their names, and the content of the superclass file."""

    splits: dict[str, list[Sample]]
    superclasses: dict[str, list[str]] | None


def _scan(sources: Sequence[Path], stack: ExitStack, notes: Notes) -> _Scan:
    entries: dict[tuple[str, str], Sample] = {}
    superclasses: dict[str, list[str]] | None = None
    folders: set[tuple[str, str]] = set()
    for file in files_in(sources, stack):
        parts = PurePosixPath(file.name).parts
        if file.folder:
            if clutter(parts) is None and in_class_folder(f"{file.name}/image"):
                folders.add((parts[-2], nfc(parts[-1])))
        elif clutter(parts):
            notes.left_out(file)
        elif parts[-1] == SUPERCLASSES and not file.problem:
            superclasses = parse_superclasses(file.where, file.read())
        elif entry := sample(file):
            _add(entries, entry)
        else:
            notes.left_out(file)
    if empty := sorted(f"{folder}/{label}" for folder, label in folders - {(e.folder, e.label) for e in entries.values()}):
        notes.remarks.append(f"no images in {_few([shown(name) for name in empty])}")
    return _Scan(_ordered(list(entries.values()), sources), superclasses)


def _ordered(entries: Sequence[Sample], sources: Sequence[Path]) -> dict[str, list[Sample]]:
    """Return the samples of each split in order. Raises `MeguError` for a split without samples, or in two folders."""
    for split, what in (("train", "give the folder one name"), ("test", "keep the ones to test on")):
        if len(found := {e.folder for e in entries if e.split == split}) > 1:
            raise MeguError(f"there are images under {' and '.join(sorted(found))}", what)
    # Sort by the name without extension first, so that an image keeps its position whatever format it is packed in.
    splits = {
        split: sorted((e for e in entries if e.split == split), key=lambda e: (e.label, e.stem, e.file)) for split in SPLITS
    }
    for split, samples in splits.items():
        if not samples:
            raise MeguError(
                f"{shown(', '.join(map(str, sources)))} has no {split} images", f"lay them out as {split}/<class>/<image file>"
            )
    return splits


def _add(entries: dict[tuple[str, str], Sample], entry: Sample) -> None:
    if (other := entries.get((entry.split, entry.key))) is None:
        entries[entry.split, entry.key] = entry
    elif entry.where == other.where:
        raise MeguError(f"{shown(entry.where)} is there twice", "keep one")
    else:
        raise MeguError(f"{shown(entry.where)} and {shown(other.where)} are the same image file", "keep one, or rename one")


def _compare_classes(splits: Mapping[str, Sequence[Sample]], notes: Notes) -> None:
    """Note which classes lack images in a split. Raise `MeguError` where their names differ from another's only in case."""
    has = {split: {entry.label for entry in entries} for split, entries in splits.items()}
    everywhere, classes = set.intersection(*has.values()), set.union(*has.values())
    spelt: dict[str, list[str]] = {}
    for label in sorted(classes):
        spelt.setdefault(label.casefold(), []).append(label)
    for labels in (labels for labels in spelt.values() if len(labels) > 1):
        said = " and ".join(map(repr, labels))
        if not everywhere.issuperset(labels):
            raise MeguError(
                f"class folders {said} differ in capitals only, and one has no train or no test images", "use one name"
            )
        notes.remarks.append(f"classes {said} differ in capitals only")
    for split in splits:
        if missing := sorted(classes - has[split]):
            notes.remarks.append(f"no {split} images of {_few(list(map(repr, missing)))}")


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _taken(splits: Mapping[str, list[Sample]], packing: Packing) -> dict[str, list[Sample]]:
    """Return the samples that ``packing.only`` and ``packing.per_class`` select, in order.

    From each class take the images whose names have the smallest hashes: the choice looks random (files with similar names often show the
    same thing) and is the same however the files are packed.
    """
    for split, entries in splits.items():
        if missing := sorted(set(packing.only) - {entry.label for entry in entries}):
            raise MeguError(
                f"there are no {split} images of {', '.join(map(repr, missing))}", "name class folders as they are written"
            )
    return {split: _first(entries, packing) for split, entries in splits.items()}


def _first(entries: Sequence[Sample], packing: Packing) -> list[Sample]:
    wanted = [entry for entry in entries if not packing.only or entry.label in packing.only]
    if packing.per_class is None:
        return wanted
    taken, often = set(), Counter[str]()
    for entry in sorted(wanted, key=lambda entry: blake2b(entry.stem.encode(), digest_size=16).digest()):
        often[entry.label] += 1
        if often[entry.label] <= packing.per_class:
            taken.add(entry.key)
    return [entry for entry in wanted if entry.key in taken]


def _described(
    kept: Mapping[str, Sequence[Sample]],
    superclasses: Mapping[str, Sequence[str]] | None,
    facts: Facts,
    packing: Packing,
    decoder: _Decoder,
) -> tuple[Facts, dict[str, Columns]]:
    classes = tuple(sorted({entry.label for entries in kept.values() for entry in entries}))
    number = {name: index for index, name in enumerate(classes)}
    labels = {split: np.array([number[entry.label] for entry in entries], dtype=np.int64) for split, entries in kept.items()}
    coarse = None if superclasses is None else coarse_names(classes, superclasses)
    resized = "" if packing.size is None else _RESIZED.format(*packing.size)
    facts = replace(facts, classes=classes, coarse=coarse, resized=resized, reduced=reduced(packing), left_out=decoder.left_out)
    named = {split: names(entries) for split, entries in kept.items()}
    if not packing.coarse_labels:
        return facts, {split: Columns(labels[split], None, named[split]) for split in kept}
    if coarse is None:
        raise MeguError("labels by superclass need a superclass file", "give it with --superclasses FILE")
    above, of = superclass_labels(coarse)
    columns = {split: Columns(of[labels[split]], labels[split], named[split]) for split in kept}
    return replace(facts, classes=above, coarse=None, fine=classes), columns


_RESIZED = "to {} x {} pixels (height x width): the middle cut to that shape, then resized (bilinear)"


class _Decoder:
    """Decode the samples of each split into its file, in order, and record what could not be read."""

    def __init__(self, packing: Packing, total: int, notes: Notes) -> None:
        self.packing = packing
        self.total = total
        self.notes = notes
        self.left_out: list[str] = []
        self.first: tuple[tuple[int, int], str] | None = None
        self.writers: list[ImageWriter] = []

    def write(self, path: Path, entries: Sequence[Sample]) -> list[Sample]:
        """Write the readable samples and return them."""
        writer = ImageWriter(path)
        self.writers.append(writer)
        kept = []
        try:
            with (
                warnings.catch_warnings(action="ignore"),  # Pillow's warnings about files that it reads nevertheless
                ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
                track(f"decode {path.name.split('_')[0]} images", total=len(entries), unit="images") as advance,
            ):
                for start in range(0, len(entries), _BATCH):
                    batch = entries[start : start + _BATCH]
                    for entry, image in zip(batch, self._each(pool, batch), strict=True):
                        if isinstance(image, str):
                            self.left_out.append(f"{entry.path}: {image}")
                        else:
                            writer.append(self._of_one_size(image[0], entry)[None])
                            kept.append(entry)
                            for kind in image[1]:
                                self.notes.did(kind, entry.path)
                    advance(len(batch))
        finally:
            writer.close()
        return kept

    def _each(self, pool: ThreadPoolExecutor, batch: Sequence[Sample]) -> Iterator[tuple[Images, tuple[str, ...]] | str]:
        # Decoding a small image takes no longer than handing it to a thread.
        if sum(entry.size for entry in batch) <= _THREADS_PAY * len(batch):
            yield from map(self._try, batch)
            return
        for start in range(0, len(batch), _TOGETHER):
            yield from pool.map(self._try, batch[start : start + _TOGETHER])

    def _try(self, entry: Sample) -> tuple[Images, tuple[str, ...]] | str:
        """Return the image (H, W, C) and what was done to it, or why it cannot be read."""
        if entry.size > LARGEST:
            return f"larger than {LARGEST >> 20} MiB"
        return readable(entry.read, self.packing.size)

    def _of_one_size(self, image: Images, entry: Sample) -> Images:
        size = (image.shape[0], image.shape[1])
        self.first = self.first or (size, entry.where)
        if size != self.first[0]:
            (height, width), where = self.first
            raise MeguError(
                f"{shown(entry.where)} is {size[1]}x{size[0]} pixels and {shown(where)} is {width}x{height}",
                f"bring all images to one size with --size {min(height, width)}",
            )
        return image

    def check_share(self) -> None:
        """Raise `MeguError` when too many images could not be read, or none could."""
        count = len(self.left_out)
        if count and (count > self.packing.max_corrupt * self.total or any(not writer.shape[0] for writer in self.writers)):
            more = f" and {count - 3} more" if count > 3 else ""
            raise MeguError(
                f"{count} of {self.total} files are not images that can be read: {'; '.join(self.left_out[:3])}{more}",
                f"replace or remove them, or leave out up to a share with --max-corrupt (now {self.packing.max_corrupt:g})",
            )

    def equalise(self) -> None:
        """Give both splits the number of channels of the one that has more."""
        channels = max(writer.shape[3] for writer in self.writers)
        for writer in self.writers:
            if writer.shape[3] < channels:
                writer.widen()
                writer.close()
