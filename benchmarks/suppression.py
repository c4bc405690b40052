"""Measure what a suppression list costs, how often a copy in another size or quality is suspected, and how often another image is.

    python benchmarks/suppression.py [DATA …] [--entries N] [--copied N] [--seed S] [--document FILE]

DATA: folders of data sets (data/fashion-mnist, data/cifar100). Cost: a list of N entries, made of images of the first set that are shifted and
mixed, is opened, and all images of that set's training split are looked for, beside packing the same images from a zip of PNG files. Recall:
--copied images of each set are put on a list, and copies of them are looked for; false alarms: all its other training images are. Prints
tables, and writes them into FILE (docs/erasure.md) with --document.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

KEY = bytes(32)
Way = Callable[[Image.Image], Image.Image]


def main() -> None:
    from document import write

    from megu.data import arrays

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="*", default=[ROOT / "data" / "fashion-mnist", ROOT / "data" / "cifar100"])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--copied", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--document", type=Path)
    asked = parser.parse_args()
    sets = [arrays.load(folder) for folder in asked.data]
    lines = [*cost(sets[0], asked.entries, asked.seed), "", *recall(sets, asked.copied, asked.seed)]
    print("\n".join(lines))
    if asked.document:
        write(asked.document, "suppression", lines)


def cost(dataset: Any, entries: int, seed: int) -> list[str]:
    """A table of seconds, and what they are of."""
    from megu.data.arrays import Facts
    from megu.data.images import folders
    from megu.data.images.notes import Notes
    from megu.data.images.packing import Packing
    from megu.suppression import SuppressionList
    from megu.suppression.record import parse

    images, took = np.asarray(dataset.train.images), dict[str, tuple[float, float]]()
    content = listed(images, entries, seed).to_bytes()
    with timed(took, "open the list"):
        opened = SuppressionList(parse(content, "list"), KEY)
    with timed(took, "look for the images"):
        found = opened.find(images)
    with tempfile.TemporaryDirectory() as scratch:
        archive = zipped(dataset, Path(scratch) / "own.zip")
        with timed(took, "pack the images"):
            folders.pack(Path(scratch) / "packed", archive, Facts("own", ()), Packing(), described=True, notes=Notes())
    load = os.getloadavg()[0]
    return [
        f"{len(images):,} images of {dataset.name}, {' x '.join(map(str, images.shape[1:]))}; a list of {entries:,} entries, "
        f"{len(content) / 1e6:.0f} MB. {int((found.suspected >= 0).sum()):,} images are suspected. One thread; load average {load:.1f}.",
        "",
        "| | s of the clock | s of the processor |",
        "|---|---|---|",
        *(f"| {name} | {clock:.1f} | {processor:.1f} |" for name, (clock, processor) in took.items()),
    ]


@contextmanager
def timed(took: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    clock, processor = time.perf_counter(), time.process_time()
    yield
    took[name] = (time.perf_counter() - clock, time.process_time() - processor)


def listed(images: Any, entries: int, seed: int) -> Any:
    """A record of hashes of images that are like these, and of as many commitments, which are like chance whatever they are to."""
    from megu.data.images import near
    from megu.suppression.record import made

    rng, hashes = np.random.default_rng(seed), list[Any]()
    while sum(map(len, hashes)) < entries:
        shifted = np.roll(images, rng.integers(-5, 6, 2), axis=(1, 2))[:, :, :: rng.choice((-1, 1))]
        other = np.roll(images, int(rng.integers(len(images))), axis=0)
        mixed = shifted.astype(np.uint16) + (other * np.float32(0.3)).astype(np.uint16)
        hashes.append(near.strengths(np.minimum(mixed, 255).astype(np.uint8)).hashes)
    facts = {"erased": "2026-01-01T00:00:00+00:00", "requests": [], "runs": [], "data": "made", "shape": [*images.shape[1:]]}
    chance = (rng.bytes(32) for _ in range(entries))
    return made(KEY, chance, np.concatenate(hashes)[:entries], samples=entries, until=None, **facts)


def zipped(dataset: Any, path: Path) -> Path:
    """Every training image as a PNG file in its class folder, and 1,000 test images, since packing wants some."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        for split, count in (("train", None), ("test", 1000)):
            part = getattr(dataset, split)
            for number, (image, label) in enumerate(zip(part.images[:count], part.labels[:count], strict=True)):
                content = io.BytesIO()
                picture(image).save(content, "PNG", compress_level=1)
                opened.writestr(f"{split}/{int(label):03}/{number:06}.png", content.getvalue())
    return path


def picture(image: Any) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def jpeg(quality: int) -> Way:
    def saved(one: Image.Image) -> Image.Image:
        content = io.BytesIO()
        one.save(content, "JPEG", quality=quality)
        return Image.open(content).convert(one.mode)

    return saved


def scaled(factor: float, filter_: Image.Resampling) -> Way:
    return lambda one: one.resize((int(one.width * factor), int(one.height * factor)), filter_)


WAYS: dict[str, Way] = {
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 75": jpeg(75),
    **{f"{name}, {kind.name.lower()}": scaled(by, kind) for name, by in (("half", 0.5), ("double", 2)) for kind in (
        Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)},
    "half, then JPEG 90": lambda one: jpeg(90)(scaled(0.5, Image.Resampling.BILINEAR)(one)),
    "double, nearest": scaled(2, Image.Resampling.NEAREST),
}  # fmt: skip


def recall(sets: list[Any], count: int, seed: int) -> list[str]:
    """A table: the share of copies that are certain or suspected, and of other images that are suspected, by data set."""
    from megu.data.arrays import image_ids
    from megu.data.images import near
    from megu.lineage.commitments import commit
    from megu.suppression import SuppressionList
    from megu.suppression.record import made

    columns = list[list[str]]()
    for dataset in sets:
        images = np.asarray(dataset.train.images)
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
        own = images[chosen]
        facts = {"erased": "2026-01-01T00:00:00+00:00", "requests": [], "runs": [], "data": dataset.name}
        ids = (commit(KEY, bytes(value)) for value in image_ids(own))
        kept = near.strengths(own)
        new = made(KEY, ids, kept.hashes[kept.usable], samples=count, until=None, shape=[*own.shape[1:]], **facts)
        opened = SuppressionList([new], KEY)
        column = []
        for way in WAYS.values():
            copies = np.stack([np.asarray(way(picture(image))) for image in own])
            found = opened.find(copies[..., None] if copies.ndim == 3 else copies)
            column.append(f"{((found.certain >= 0) | (found.suspected >= 0)).mean():.1%}")
        others = opened.find(images)
        column.append(f"{int((others.suspected >= 0).sum()):,} of {len(images) - count:,}")
        columns.append(column)
    names = [dataset.name for dataset in sets]
    rows = zip([*WAYS, "other images that are suspected"], *columns, strict=True)
    return [
        f"{count} images of each set on a list, seed {seed}: the share of their copies that are found.",
        "",
        f"| copy | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


if __name__ == "__main__":
    main()
