"""Image bytes to arrays: the IDX files of the MNIST family, and class folders of image files."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import (
    SPLITS,
    Columns,
    Dataset,
    Facts,
    Images,
    ImageWriter,
    atomic_folder,
    complete,
    is_disk_full,
    load,
    superclass_labels,
)
from megu.errors import MeguError
from megu.progress import track

SUPERCLASSES = "superclasses.json"
#: Files read and decoded together.
_BATCH = 256
#: Bytes a file on average from which decoding in threads is faster: on two cores it took 1.7 times as long for CIFAR's 2 kB
#: files, and less than half for JPEGs of 1200 x 900.
_THREADS_PAY = 16_384
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One gzipped IDX file of unsigned bytes, with its shape.

    Raises
    ------
    ValueError: not such a file, or cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    header = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise ValueError(f"{path.name} has {len(data) - header} bytes for shape {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


@dataclass(frozen=True)
class Packing:
    """How class folders become arrays.

    Attributes
    ----------
    size: height and width in pixels that every image is brought to: the largest part of the middle with that shape is cut out and
        resized (bilinear, smoothed). None: all images must have one size.
    max_corrupt: the largest share of files, in [0, 1], that may be unreadable; they are left out and listed. More is an error.
    coarse_labels: label by superclass and keep the finer labels beside.
    superclasses: {superclass: [class, ...]} where the images come without a ``superclasses.json``.
    only: the class folders to take, all others are left where they are. Empty: all.
    per_class: of each class folder so many images at most, in train and in test. None: all.
    """

    size: tuple[int, int] | None = None
    max_corrupt: float = 0.0
    coarse_labels: bool = False
    superclasses: Mapping[str, Sequence[str]] | None = None
    only: tuple[str, ...] = ()
    per_class: int | None = None


def parse_packing(
    size: str | None,
    superclasses: Path | None,
    labels: str,
    max_corrupt: float,
    only: str | None = None,
    per_class: int | None = None,
) -> Packing:
    """`Packing` as the command line has it. Raises `MeguError` for what cannot be."""
    if labels not in ("fine", "coarse"):
        raise MeguError(f"--labels {labels!r} is not known", "write fine or coarse")
    sides = [] if size is None else size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 1 <= int(side) <= 4096 for side in sides):
        raise MeguError(f"--size {size!r} is not a size", "write 32, or 24x32 (height x width), in pixels up to 4096")
    found = None
    if superclasses is not None:
        try:
            found = parse_superclasses(str(superclasses), superclasses.read_bytes())
        except OSError as error:
            raise MeguError(f"{superclasses} cannot be read ({error.strerror})", "check the path") from None
    classes = () if only is None else tuple(name.strip() for name in only.split(","))
    if not all(classes):
        raise MeguError(f"--only {only!r} has an empty name", "write the class folders as CLASS,CLASS,…")
    shape = (int(sides[0]), int(sides[-1])) if sides else None
    return Packing(shape, max_corrupt, labels == "coarse", found, classes, per_class)


@dataclass(frozen=True)
class _Entry:
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


def pack(path: Path, source: Path | Sequence[Path], facts: Facts, packing: Packing) -> Dataset:
    """Make a data set folder of ``train/<class>/<image>`` and ``test/<class>/<image>`` in a folder, an archive, or several of either.

    ``val/`` or ``valid/`` serve where there is no ``test/``.
    A folder may also hold archives that together are the data set (CIFAR-100 comes in three). A ``superclasses.json``
    ({superclass: [class, ...]}) beside the images gives the coarse names. Images become grey (one channel) when every file is
    grey, else RGB. Samples are in the order of their path names, so the same files give the same bytes however they were packed.
    A batch of images at most is in memory. ``facts`` has the name, source and licence; the rest of it is found here.

    Raises
    ------
    MeguError: nothing there, an unknown layout, images that differ in size without ``packing.size``, or too many that cannot be
        read (they are named).
    """
    sources = [source] if isinstance(source, Path) else list(source)
    with ExitStack() as stack:
        splits, superclasses = _scan(sources, stack)
        splits = _taken(splits, packing)
        folder = stack.enter_context(atomic_folder(path))
        decoder = _Decoder(packing, sum(map(len, splits.values())))
        kept = {split: decoder.write(folder / f"{split}_images.npy", entries) for split, entries in splits.items()}
        decoder.judge()
        decoder.equalise()
        complete(folder, *_described(kept, superclasses or packing.superclasses, facts, packing, decoder))
    return load(path)


def _scan(sources: Sequence[Path], stack: ExitStack) -> tuple[dict[str, list[_Entry]], dict[str, list[str]] | None]:
    """The samples of each split in the order of their names, and the superclass file's content."""
    entries: dict[tuple[str, str], _Entry] = {}
    superclasses: dict[str, list[str]] | None = None
    for where, name, size, read in _files(sources, stack):
        if PurePosixPath(name).name == SUPERCLASSES:
            superclasses = parse_superclasses(where, read())
        elif entry := _entry(where, name, size, read):
            if (entry.split, entry.key) in entries:
                raise MeguError(
                    f"{entry.where} and {entries[entry.split, entry.key].where} are the same image file", "keep one"
                )
            entries[entry.split, entry.key] = entry
    if len(folders := {e.folder for e in entries.values() if e.split == "test"}) > 1:
        raise MeguError(f"there are images under {' and '.join(sorted(folders))}", "keep the ones to test on")
    # By the name without its ending first, so that an image comes where it did whatever format it is packed in.
    splits = {
        split: sorted((e for e in entries.values() if e.split == split), key=lambda e: (e.label, e.stem, e.file))
        for split in SPLITS
    }
    for split, found in splits.items():
        if not found:
            raise MeguError(
                f"{', '.join(map(str, sources))} has no {split} images", f"lay them out as {split}/<class>/<image file>"
            )
    return splits, superclasses


def _taken(splits: Mapping[str, list[_Entry]], packing: Packing) -> dict[str, list[_Entry]]:
    """The samples that ``packing.only`` and ``packing.per_class`` leave, in their order.

    Of each class the images are taken whose names' hashes come first: the choice looks random (files of one name often show one thing)
    and is the same however the files are packed.
    """
    for split, entries in splits.items():
        if missing := sorted(set(packing.only) - {entry.label for entry in entries}):
            raise MeguError(
                f"there are no {split} images of {', '.join(map(repr, missing))}", "name class folders as they are written"
            )
    return {split: _first(entries, packing) for split, entries in splits.items()}


def _first(entries: Sequence[_Entry], packing: Packing) -> list[_Entry]:
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
    kept: Mapping[str, Sequence[_Entry]],
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


def reduced(packing: Packing) -> str:
    """What `_taken` leaves, in words; "" for everything."""
    classes = f"{len(set(packing.only))} class folders" if packing.only else ""
    number = f"at most {packing.per_class:,} images of each class and split" if packing.per_class else ""
    return ", ".join(filter(None, (classes, number)))


_RESIZED = "to {} x {} pixels (height x width): the middle cut to that shape, then resized (bilinear)"


def names(entries: Sequence[_Entry]) -> list[str]:
    """The name of each sample: class and file, without the ending unless another file of the class differs in that alone."""
    often = Counter(entry.stem for entry in entries)
    return [entry.stem if often[entry.stem] == 1 else entry.key for entry in entries]


_File = tuple[str, str, int, Callable[[], bytes]]


def _files(sources: Iterable[Path], stack: ExitStack) -> Iterator[_File]:
    """(for messages, path inside the data set, bytes, reader) of every file in folders and archives."""
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                if path.parent == source and path.name.endswith(_ARCHIVES):
                    yield from _archive(path, stack)
                else:
                    yield str(path), path.relative_to(source).as_posix(), path.stat().st_size, path.read_bytes
        elif source.is_file() and source.name.endswith(_ARCHIVES):
            yield from _archive(source, stack)
        elif source.is_file() and source.suffix == ".json":
            yield str(source), SUPERCLASSES, source.stat().st_size, source.read_bytes
        elif source.exists():
            raise MeguError(
                f"{source} is neither a folder nor an archive", f"give a folder or a file ending in {', '.join(_ARCHIVES)}"
            )
        else:
            raise MeguError(f"{source} does not exist", "check the path")


def _archive(path: Path, stack: ExitStack) -> Iterator[_File]:
    try:
        if path.name.endswith(".zip"):
            bundle = stack.enter_context(zipfile.ZipFile(path))
            for info in bundle.infolist():
                if not info.is_dir():
                    yield f"{path}:{info.filename}", info.filename, info.file_size, partial(bundle.read, info)
        else:
            # A compressed tar cannot be read out of order at a bearable speed, so its files are put aside as they pass, on disk.
            aside = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and (file := tar.extractfile(member)) is not None:
                        start = aside.tell()
                        shutil.copyfileobj(file, aside)
                        aside.flush()
                        read = partial(os.pread, aside.fileno(), member.size, start)
                        yield f"{path}:{member.name}", member.name, member.size, read
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if is_disk_full(error):
            raise
        raise MeguError(f"{path} is damaged or not an archive ({error})", "fetch the file again") from error


def _entry(where: str, name: str, size: int, read: Callable[[], bytes]) -> _Entry | None:
    """The sample that a file is, or None for files that are none (a README, a hidden file)."""
    parts = PurePosixPath(name).parts
    if parts[-1].startswith((".", "__MACOSX")) or "__MACOSX" in parts or PurePosixPath(name).suffix.lower() not in IMAGES:
        return None
    if len(parts) < 3 or parts[-3] not in SPLIT_FOLDERS:
        raise MeguError(f"{where} is not in a class folder", "lay images out as train/<class>/<image> and test/<class>/<image>")
    return _Entry(SPLIT_FOLDERS[parts[-3]], parts[-3], parts[-2], parts[-1], size, where, read)


class _Decoder:
    """Decodes the samples of each split into its file, in order, and remembers what could not be read."""

    def __init__(self, packing: Packing, total: int) -> None:
        self.packing = packing
        self.total = total
        self.left_out: list[str] = []
        self.first: tuple[tuple[int, int], str] | None = None
        self.writers: list[ImageWriter] = []

    def write(self, path: Path, entries: Sequence[_Entry]) -> list[_Entry]:
        """Write what can be read; returns the samples that were."""
        writer = ImageWriter(path)
        self.writers.append(writer)
        kept = []
        try:
            with (
                ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
                track(f"decode {path.name.split('_')[0]} images", total=len(entries), unit="images") as advance,
            ):
                for start in range(0, len(entries), _BATCH):
                    batch = entries[start : start + _BATCH]
                    # Small images are decoded in the time that handing them to a thread takes.
                    large = sum(entry.size for entry in batch) > _THREADS_PAY * len(batch)
                    found = list((pool.map if large else map)(self._try, batch))
                    for entry, image in zip(batch, found, strict=True):
                        if isinstance(image, str):
                            self.left_out.append(f"{entry.where}: {image}")
                        else:
                            writer.append(self._of_one_size(image, entry)[None])
                            kept.append(entry)
                    advance(len(batch))
        finally:
            writer.close()
        return kept

    def _try(self, entry: _Entry) -> Images | str:
        """The image (H, W, C), or why it cannot be read."""
        return _readable(entry.read, self.packing.size)

    def _of_one_size(self, image: Images, entry: _Entry) -> Images:
        size = (image.shape[0], image.shape[1])
        self.first = self.first or (size, entry.where)
        if size != self.first[0]:
            (height, width), where = self.first
            raise MeguError(
                f"{entry.where} is {size[1]}x{size[0]} pixels and {where} is {width}x{height}",
                f"bring all images to one size with --size {min(height, width)}",
            )
        return image

    def judge(self) -> None:
        """Raise `MeguError` when too many could not be read, or none could."""
        count = len(self.left_out)
        if count and (count > self.packing.max_corrupt * self.total or any(not writer.shape[0] for writer in self.writers)):
            more = f" and {count - 3} more" if count > 3 else ""
            raise MeguError(
                f"{count} of {self.total} files are not images that can be read: {'; '.join(self.left_out[:3])}{more}",
                f"replace or remove them, or leave out up to a share with --max-corrupt (now {self.packing.max_corrupt:g})",
            )

    def equalise(self) -> None:
        """Give both splits the channels of the one that has more."""
        channels = max(writer.shape[3] for writer in self.writers)
        for writer in self.writers:
            if writer.shape[3] < channels:
                writer.widen()
                writer.close()


def _readable(read: Callable[[], bytes], size: tuple[int, int] | None) -> Images | str:
    """An image (H, W, C), or why it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read())) as image:
            return _pixels(image, size)
    except UnidentifiedImageError:
        return "not an image"
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def decoded(path: Path, size: tuple[int, int]) -> Images:
    """One image file in the form that a data set of this size (height, width) has it: uint8 (H, W, C).

    Raises `MeguError` when it is not an image that can be read.
    """
    found = _readable(path.read_bytes, size)
    if isinstance(found, str):
        raise MeguError(f"{path} cannot be read: {found}", "name an image file")
    return found


def _pixels(image: Any, size: tuple[int, int] | None) -> Images:
    """uint8 (H, W, C): one channel for grey images (16-bit ones lose their lower byte), three for all others."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if size is not None and plain.size != size[::-1]:
        plain = plain.crop(_middle(plain.size, size)).resize(size[::-1], Image.Resampling.BILINEAR)
    array: Images = np.asarray(plain)
    return array[..., None] if array.ndim == 2 else array


def _middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) in the middle of an image of ``size`` (width, height) with the shape of (height, width)."""
    width, height = size
    across = min(width, max(round(height * shape[1] / shape[0]), 1))
    down = min(height, max(round(width * shape[0] / shape[1]), 1))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def parse_superclasses(where: str, data: bytes) -> dict[str, list[str]]:
    """The content of a superclass file, {superclass: [class, ...]}."""
    try:
        return {str(coarse): [str(name) for name in names] for coarse, names in json.loads(data).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise MeguError(f"{where} is not of the form {{superclass: [class, ...]}} ({error})", "correct it") from error


def coarse_names(classes: Sequence[str], superclasses: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The superclass of each class."""
    of: dict[str, str] = {}
    for coarse, members in superclasses.items():
        for name in members:
            if of.setdefault(name, coarse) != coarse:
                raise MeguError(f"{SUPERCLASSES} has {name!r} in {of[name]!r} and in {coarse!r}", "name every class once")
    if missing := [name for name in classes if name not in of]:
        raise MeguError(f"{SUPERCLASSES} has no superclass for {', '.join(map(repr, missing[:5]))}", "name every class once")
    return tuple(of[name] for name in classes)
