"""Image bytes to arrays: the IDX files of the MNIST family, and class folders of image files."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import Images, Labels
from megu.errors import MeguError
from megu.progress import track

SUPERCLASSES = "superclasses.json"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


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
class ClassFolders:
    """What class folders hold; ``train`` and ``test`` are uint8 images (N, H, W, C) and int64 labels (N,).

    Samples are in the order of their path names, so the same files give the same arrays however they were packed.
    """

    classes: tuple[str, ...]
    coarse: tuple[str, ...] | None
    train: tuple[Images, Labels]
    test: tuple[Images, Labels]


@dataclass(frozen=True)
class _Entry:
    split: str
    folder: str
    label: str
    key: str
    where: str
    read: Callable[[], bytes]


def read_class_folders(source: Path | Sequence[Path]) -> ClassFolders:
    """Read ``train/<class>/<image>`` and ``test/<class>/<image>`` from a folder, an archive, or several of either.

    ``val/`` or ``valid/`` serve where there is no ``test/``.
    A folder may also hold archives that together are the data set (CIFAR-100 comes in three). A ``superclasses.json``
    ({superclass: [class, ...]}) beside the images gives the coarse names. All images must have one size; they become grey
    (one channel) when every file is grey, else RGB.

    Raises
    ------
    MeguError: nothing there, an unknown layout, images that cannot be read or differ in size (the file is named).
    """
    sources = [source] if isinstance(source, Path) else list(source)
    with ExitStack() as stack:
        entries: dict[tuple[str, str], _Entry] = {}
        superclasses: dict[str, list[str]] | None = None
        for where, name, read in _files(sources, stack):
            if PurePosixPath(name).name == SUPERCLASSES:
                superclasses = _superclasses(where, read())
            elif entry := _entry(where, name, read):
                if (entry.split, entry.key) in entries:
                    raise MeguError(
                        f"{entry.where} and {entries[entry.split, entry.key].where} are the same image file", "keep one"
                    )
                entries[entry.split, entry.key] = entry
        if len(folders := {e.folder for e in entries.values() if e.split == "test"}) > 1:
            raise MeguError(f"there are images under {' and '.join(sorted(folders))}", "keep the ones to test on")
        splits = {
            split: sorted((e for e in entries.values() if e.split == split), key=lambda e: e.key) for split in ("train", "test")
        }
        for split, found in splits.items():
            if not found:
                raise MeguError(
                    f"{', '.join(map(str, sources))} has no {split} images", f"lay them out as {split}/<class>/<image file>"
                )
        classes = tuple(sorted({entry.label for entry in entries.values()}))
        decoded = _decode(splits["train"] + splits["test"])
    labels = np.array([classes.index(e.label) for e in splits["train"] + splits["test"]], dtype=np.int64)
    n = len(splits["train"])
    return ClassFolders(
        classes=classes,
        coarse=None if superclasses is None else _coarse(classes, superclasses),
        train=(decoded[:n], labels[:n]),
        test=(decoded[n:], labels[n:]),
    )


def _files(sources: Iterable[Path], stack: ExitStack) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(for messages, path inside the data set, reader) of every file in folders and archives."""
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                if path.parent == source and path.name.endswith(_ARCHIVES):
                    yield from _archive(path, stack)
                else:
                    yield str(path), path.relative_to(source).as_posix(), path.read_bytes
        elif source.is_file() and source.name.endswith(_ARCHIVES):
            yield from _archive(source, stack)
        elif source.is_file() and source.name == SUPERCLASSES:
            yield str(source), source.name, source.read_bytes
        elif source.exists():
            raise MeguError(
                f"{source} is neither a folder nor an archive", f"give a folder or a file ending in {', '.join(_ARCHIVES)}"
            )
        else:
            raise MeguError(f"{source} does not exist", "check the path")


def _archive(path: Path, stack: ExitStack) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    try:
        if path.name.endswith(".zip"):
            bundle = stack.enter_context(zipfile.ZipFile(path))
            for info in bundle.infolist():
                if not info.is_dir():
                    yield f"{path}:{info.filename}", info.filename, partial(bundle.read, info)
        else:
            # A compressed tar cannot be read out of order at a bearable speed, so its files are kept as they pass.
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and (file := tar.extractfile(member)) is not None:
                        yield f"{path}:{member.name}", member.name, partial(bytes, file.read())
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise MeguError(f"{path} is damaged or not an archive ({error})", "fetch the file again") from error


def _entry(where: str, name: str, read: Callable[[], bytes]) -> _Entry | None:
    """The sample that a file is, or None for files that are none (a README, a hidden file)."""
    parts = PurePosixPath(name).parts
    if parts[-1].startswith((".", "__MACOSX")) or "__MACOSX" in parts or PurePosixPath(name).suffix.lower() not in _IMAGES:
        return None
    if len(parts) < 3 or parts[-3] not in _SPLIT_FOLDERS:
        raise MeguError(f"{where} is not in a class folder", "lay images out as train/<class>/<image> and test/<class>/<image>")
    return _Entry(_SPLIT_FOLDERS[parts[-3]], parts[-3], parts[-2], f"{parts[-2]}/{parts[-1]}", where, read)


def _decode(entries: Sequence[_Entry]) -> Images:
    """uint8 (N, H, W, C) of the entries, in their order."""
    from PIL import Image, UnidentifiedImageError

    images: list[Any] = []
    first: tuple[int, int] | None = None
    grey = True
    with track("decode images", total=len(entries), unit="images") as advance:
        for entry in entries:
            try:
                with Image.open(io.BytesIO(entry.read())) as image:
                    is_grey = image.mode in ("1", "L", "LA")
                    array = np.asarray(image.convert("L" if is_grey else "RGB"))
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
                raise MeguError(f"{entry.where} is not an image that can be read ({error})", "replace or remove it") from error
            size = (array.shape[0], array.shape[1])
            first = first or size
            if size != first:
                raise MeguError(
                    f"{entry.where} is {size[1]}x{size[0]} pixels and {entries[0].where} is {first[1]}x{first[0]}",
                    "bring all images to one size",
                )
            grey = grey and is_grey
            images.append(array)
            advance(1)
    if grey:
        return np.stack(images)[..., None]
    return np.stack([array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in images])


def _superclasses(where: str, data: bytes) -> dict[str, list[str]]:
    try:
        return {str(coarse): [str(name) for name in names] for coarse, names in json.loads(data).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise MeguError(f"{where} is not of the form {{superclass: [class, ...]}} ({error})", "correct it") from error


def _coarse(classes: Sequence[str], superclasses: dict[str, list[str]]) -> tuple[str, ...]:
    of = {name: coarse for coarse, names in superclasses.items() for name in names}
    if missing := [name for name in classes if name not in of]:
        raise MeguError(f"{SUPERCLASSES} has no superclass for {', '.join(map(repr, missing[:5]))}", "name every class once")
    return tuple(of[name] for name in classes)
