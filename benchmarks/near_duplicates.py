"""Measure how long it takes to find images that are almost the same in a data set, how many copies are found, and how often chance finds one.

    python benchmarks/near_duplicates.py [DATA …] [--copied N] [--seed S] [--document FILE]

DATA: folders of data sets (data/fashion-mnist, data/cifar100). Cost: all images of each set, train and test. Recall: --copied images of each
set are changed, and the set is looked at with their copies in it. Chance: pairs of an image and the mirror image of another one, which is a
copy only where somebody mirrored a photograph, or of garments that are their own mirror images. Prints tables, and writes them
into FILE (docs/data.md) with --document.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

#: Thresholds whose numbers stand beside that of `megu.data.images.near.ALIKE`.
THRESHOLDS = (0.04, 0.06, 0.08, 0.1)


def main() -> None:
    from document import write

    from megu.data import arrays

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="*", default=[ROOT / "data" / "fashion-mnist", ROOT / "data" / "cifar100"])
    parser.add_argument("--copied", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--document", type=Path)
    asked = parser.parse_args()
    sets = [arrays.load(folder) for folder in asked.data]
    lines = [*cost(sets), "", *recall(sets, asked.copied, asked.seed), "", *thresholds(sets, asked.copied, asked.seed)]
    print("\n".join(lines))
    if asked.document:
        write(asked.document, "near-duplicates", lines)


def cost(sets: list[Any]) -> list[str]:
    """A table of seconds, and of what is found in the sets as they are."""
    from megu.data.images import duplicates

    rows = []
    for dataset in sets:
        clock, processor = time.perf_counter(), time.process_time()
        groups = duplicates.groups(dataset)
        took = time.perf_counter() - clock, time.process_time() - processor
        ids = np.concatenate([dataset.train.ids, dataset.test.ids])
        sizes = np.unique(groups[groups >= 0], return_counts=True)[1]
        kinds = duplicates.in_kinds(dataset, groups)
        almost = [sum(len(np.unique(ids[places])) > 1 for places in found) for found in kinds.values()]
        cells = [f"{len(ids):,}", f"{took[0]:.1f}", f"{took[1]:.1f}", f"{len(sizes):,}", f"{sizes.max(initial=0)}"]
        cells += [f"{len(found):,} ({some:,})" for found, some in zip(kinds.values(), almost, strict=True)]
        rows.append(f"| {' | '.join([dataset.name, *cells])} |")
    return [
        f"All images, one thread; load average {os.getloadavg()[0]:.1f}. In brackets: not equal to the pixel.",
        "",
        f"| | images | s of the clock | s of the processor | groups of copies | the largest | {' | '.join(kinds)} |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def ways(seed: int) -> dict[str, Any]:
    """What is done to an image; each leaves its size."""
    from suppression import jpeg, scaled

    rng = np.random.default_rng(seed)

    def back(factor: float, kind: Image.Resampling) -> Any:
        return lambda one: scaled(factor, kind)(one).resize(one.size, kind)

    def grey(change: Any) -> Any:
        return lambda one: Image.fromarray(np.clip(change(np.asarray(one).astype(float)), 0, 255).astype(np.uint8))

    return {
        "JPEG, quality 90": jpeg(90),
        "JPEG, quality 75": jpeg(75),
        "JPEG, quality 50": jpeg(50),
        "twice the size and back, bicubic": back(2, Image.Resampling.BICUBIC),
        "three quarters and back, bicubic": back(0.75, Image.Resampling.BICUBIC),
        "half and back, bicubic": back(0.5, Image.Resampling.BICUBIC),
        "contrast 80%": grey(lambda pixels: pixels * 0.8 + 25),
        "5% brighter": grey(lambda pixels: pixels * 1.05),
        "noise of 4 grey levels": grey(lambda pixels: pixels + rng.normal(0, 4, pixels.shape)),
    }


def copied(dataset: Any, count: int, seed: int, way: Any) -> Any:
    """Some images of a set, and each of them changed: uint8 (count, H, W, C) twice."""
    from suppression import picture

    chosen = np.sort(np.random.default_rng(seed).choice(len(dataset.train), count, replace=False))
    own = np.asarray(dataset.train.images[chosen])
    made = np.stack([np.asarray(way(picture(image))) for image in own])
    return own, made.reshape(own.shape)


def recall(sets: list[Any], count: int, seed: int) -> list[str]:
    """A table: the share of copies that are found, among all training images of the set."""
    from megu.data.images import near

    columns = list[list[str]]()
    for dataset in sets:
        chosen = np.sort(np.random.default_rng(seed).choice(len(dataset.train), count, replace=False))
        values, column = near.strengths(dataset.train.images).values, []
        for way in ways(seed).values():
            own, made = copied(dataset, count, seed, way)
            pairs = near.alike(near.Strengths(np.concatenate([values, near.strengths(made).values])))
            found = {(int(one), int(other)) for one, other in pairs}
            hit = sum((int(at), len(values) + number) in found for number, at in enumerate(chosen))
            column.append(f"{hit / len(own):.1%}")
        columns.append(column)
    rows = zip(ways(seed), *columns, strict=True)
    return [
        f"{count} images of each set, seed {seed}: the share of their copies that are found among all.",
        "",
        f"| copy | {' | '.join(dataset.name for dataset in sets)} |",
        f"|---|{'---|' * len(sets)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def thresholds(sets: list[Any], count: int, seed: int) -> list[str]:
    """A table: at several thresholds the copies that are found, the pairs in the sets as they are, and those that chance makes."""
    from megu.data.images import near

    own, rows = near.ALIKE, list[str]()
    for threshold in sorted({own, *THRESHOLDS}):
        near.ALIKE, cells = threshold, list[str]()
        for dataset in sets:
            first, made = copied(dataset, count, seed, ways(seed)["JPEG, quality 75"])
            pairs = near.alike(near.Strengths(np.concatenate([near.strengths(first).values, near.strengths(made).values])))
            found = float(np.mean(np.bincount(pairs[pairs[:, 1] - pairs[:, 0] == count][:, 0], minlength=count) > 0))
            values = near.strengths(dataset.train.images).values
            inside = near.alike(near.Strengths(values))
            labels = np.asarray(dataset.train.labels)
            mirrored = near.strengths(np.asarray(dataset.train.images)[:, :, ::-1]).values
            across = near.alike(near.Strengths(np.concatenate([values, mirrored])))
            across = across[(across[:, 0] < len(values)) & (across[:, 1] >= len(values))]
            chance = int((across[:, 1] - len(values) > across[:, 0]).sum())
            cells += [
                f"{found:.1%}",
                f"{len(inside):,}",
                f"{int((labels[inside[:, 0]] != labels[inside[:, 1]]).sum()):,}",
                f"{chance:,}",
            ]
        rows.append(f"| {threshold:g}{' (chosen)' if threshold == own else ''} | {' | '.join(cells)} |")
    near.ALIKE = own
    of = [
        f"{dataset.name}: {what}"
        for dataset in sets
        for what in ("JPEG 75 found", "pairs", "in two classes", "with a mirror image")
    ]
    return [
        "Training images alone, at several thresholds: copies found, pairs in the set as it is, those of them whose labels differ, "
        "and pairs of an image with the mirror image of another.",
        "",
        f"| threshold | {' | '.join(of)} |",
        f"|---|{'---|' * len(of)}",
        *rows,
    ]


if __name__ == "__main__":
    main()
