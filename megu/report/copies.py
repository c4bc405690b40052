"""The picture of images that are almost the same: forgotten and retained, in train and in test, in two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from megu.data.arrays import Dataset
from megu.data.images.duplicates import Groups, copies, copies_left, counted, in_kinds
from megu.data.images.repeats import BOTH_SPLITS, TWO_CLASSES
from megu.data.splits import ForgetSplit
from megu.report.figures import COLOURS, SOFT, picture, png, short

#: Pairs shown of each kind.
SHOWN = 6
RETAINED = "retained"


@dataclass(frozen=True)
class Copies:
    """One kind of copies. says: how many there are, and what they are. images: uint8 (n, 2, H, W, C), in pairs. names: for each pair, the
    captions above its images; forgotten: which of these images are forgotten."""

    says: str
    images: NDArray[np.uint8]
    names: Sequence[tuple[str, str]]
    forgotten: NDArray[np.bool_]


def found(dataset: Dataset, groups: Groups, split: ForgetSplit) -> tuple[list[Copies], dict[str, int]]:
    """Return what to show, and the count of each kind: "retained" images, and groups "in train and in test" and "in two classes"."""
    retained = copies(groups, split.forget, split.retain)
    first = {int(group): int(at) for group, at in zip(groups[split.forget][::-1], split.forget[::-1], strict=True)}
    pairs = {RETAINED: [(first[int(groups[at])], int(at)) for at in retained]}
    counts, train = {RETAINED: len(retained)}, len(dataset.train)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    for kind, places in in_kinds(dataset, groups).items():
        other = [at >= train if kind == BOTH_SPLITS else labels[at] != labels[at[0]] for at in places]
        pairs[kind] = [(int(at[0]), int(at[where][0])) for at, where in zip(places, other, strict=True)]
        counts[kind] = len(places)
    said = {kind: f"{counted(counts[kind])} {kind}" for kind in (BOTH_SPLITS, TWO_CLASSES)}
    said[RETAINED] = copies_left(len(retained))
    forgotten = np.isin(np.arange(len(labels)), split.forget)
    return [_shown(dataset, said[kind], some, forgotten) for kind, some in pairs.items() if some], counts


def _shown(dataset: Dataset, says: str, pairs: Sequence[tuple[int, int]], forgotten: NDArray[np.bool_]) -> Copies:
    """Choose a few of the pairs, spread evenly over all."""
    chosen = [pairs[at] for at in np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int)]
    rows = [[_row(dataset, at) for at in pair] for pair in chosen]
    return Copies(
        says,
        images=np.stack([np.stack([image for image, _ in row]) for row in rows]),
        names=[(row[0][1], row[1][1]) for row in rows],
        forgotten=forgotten[np.array(chosen)],
    )


def _row(dataset: Dataset, at: int) -> tuple[NDArray[np.uint8], str]:
    """Return an image, and its split and class."""
    train = len(dataset.train)
    split, part, place = ("train", dataset.train, at) if at < train else ("test", dataset.test, at - train)
    return np.asarray(part.images[place]), f"{split}: {short(dataset.classes[part.labels[place]], 9)}"


def draw(kinds: Sequence[Copies]) -> bytes:
    """Draw a row of pairs for each kind, as PNG; forgotten images stand out."""
    figure = Figure(figsize=(10.4, 1.6 * len(kinds)), layout="constrained")
    for part, kind in zip(figure.subfigures(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        part.suptitle(kind.says, x=0.01, ha="left", fontsize=10)
        grid = part.subplots(1, 3 * SHOWN - 1, width_ratios=[*(1, 1, 0.25) * SHOWN][:-1])
        for axes in grid:
            axes.axis("off")
        for number, (pair, names, gone) in enumerate(zip(kind.images, kind.names, kind.forgotten, strict=True)):
            for axes, image, name, forgotten in zip(grid[3 * number :][:2], pair, names, gone, strict=True):
                axes.axis("on")
                picture(axes, image / 255.0)
                axes.set_title(name, fontsize=6.5, color=COLOURS["unlearned"] if forgotten else SOFT)
    return png(figure)
