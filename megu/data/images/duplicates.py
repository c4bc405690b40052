"""Duplicate images in a data set, identical to the pixel or almost: in train and test, in two classes, forgotten and retained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from megu.data.images import near
from megu.data.images.repeats import BOTH_SPLITS, TWO_CLASSES
from megu.data.naming import shown

if TYPE_CHECKING:
    from megu.data.arrays import Dataset

Groups = NDArray[np.int64]
Positions = NDArray[np.int64]

#: How many groups a line names.
_SHOWN = 3


def groups(dataset: Dataset) -> Groups:
    """Return the group of copies that each image is in, -1 for an image without copies: int64 (N,), training images, then test images.

    A copy of a copy is in the group too. The only copies of an image of a single shade are those identical to the pixel.
    """
    parts = (dataset.train, dataset.test)
    _, first, number = np.unique(np.concatenate([part.ids for part in parts]), return_index=True, return_inverse=True)
    strengths = near.Strengths(np.concatenate([near.strengths(part.images).values for part in parts])[first])
    joined = _joined(len(first), near.alike(strengths))[number]
    return np.where(np.bincount(joined)[joined] > 1, joined, -1)


def _joined(count: int, pairs: NDArray[np.int64]) -> Groups:
    """Return, for each of ``count`` numbers, the smallest number that pairs (P, 2) connect it with."""
    found, before = np.arange(count), None
    while before is None or not np.array_equal(found, before):
        before = found.copy()
        smaller = np.minimum(found[pairs[:, 0]], found[pairs[:, 1]])
        for side in (0, 1):
            np.minimum.at(found, pairs[:, side], smaller)
    return found


def in_kinds(dataset: Dataset, groups: Groups) -> dict[str, list[Positions]]:
    """Return the groups that are in both train and test, and those in two classes: the positions of each, numbered as in `groups`."""
    train = len(dataset.train)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    found: dict[str, list[Positions]] = {BOTH_SPLITS: [], TWO_CLASSES: []}
    for places in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []:
        if places[0] < train <= places[-1]:
            found[BOTH_SPLITS].append(places)
        if len(np.unique(labels[places])) > 1:
            found[TWO_CLASSES].append(places)
    return found


def copies(groups: Groups, forget: Positions, retain: Positions) -> Positions:
    """Return the retained training images that are copies of forgotten ones."""
    gone = np.unique(groups[forget])
    return retain[np.isin(groups[retain], gone[gone >= 0])]


def copies_left(count: int) -> str:
    """Say in words how many copies of forgotten images stay."""
    return f"{counted(count, 'training image', ' that stays', ' that stay')} almost the same as forgotten ones"


def counted(count: int, what: str = "image", one: str = "", many: str = "") -> str:
    """Return the words "1 image is" or "2 images are"; one, many: the text between noun and verb."""
    return f"1 {what}{one} is" if count == 1 else f"{count:,} {what}s{many} are"


def duplicate_lines(dataset: Dataset) -> Iterator[str]:
    """Yield a line for each kind of group whose images are not all identical (for those see `megu.data.images.repeats.repeat_lines`)."""
    ids = np.concatenate([dataset.train.ids, dataset.test.ids])
    for kind, found in in_kinds(dataset, groups(dataset)).items():
        almost = [places for places in found if len(np.unique(ids[places])) > 1]
        if almost:
            examples = "; ".join(" ~ ".join(_name(dataset, int(at)) for at in places[:_SHOWN]) for places in almost[:_SHOWN])
            yield f"{counted(len(almost))} almost the same {kind} ({examples}{'; …' if len(almost) > _SHOWN else ''})"


def _name(dataset: Dataset, at: int) -> str:
    """Return where an image is: by name, or by its position in the split."""
    train = len(dataset.train)
    split, part, at = ("train", dataset.train, at) if at < train else ("test", dataset.test, at - train)
    return shown(f"{split}/{part.names[at].decode()}") if part.names is not None else f"{split} image {at:,}"
