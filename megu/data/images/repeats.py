"""Images that occur in both train and test, or in two classes: they make a test easier, or a label wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.data.naming import shown

if TYPE_CHECKING:
    from megu.data.arrays import Dataset

Ids = NDArray[np.bytes_]
Labels = NDArray[np.integer[Any]]

BOTH_SPLITS = "in train and in test"
TWO_CLASSES = "in two classes"
#: How many images a line names.
_SHOWN = 3


def repeats(ids: Mapping[str, Ids], labels: Mapping[str, Labels]) -> dict[str, int]:
    """Count the distinct images repeated in each way; empty when there are none. ids, labels: (N,) of each split."""
    return {kind: len(found) for kind, found in _repeated(ids, labels).items() if len(found)}


def _repeated(ids: Mapping[str, Ids], labels: Mapping[str, Labels]) -> dict[str, NDArray[np.bytes_]]:
    both = np.intersect1d(ids["train"], ids["test"])
    number, flat = np.unique(np.concatenate(list(ids.values())), return_inverse=True)
    pairs = np.unique(np.stack([flat, np.concatenate([labels[split] for split in ids])]), axis=1)
    return {BOTH_SPLITS: both, TWO_CLASSES: number[np.bincount(pairs[0], minlength=len(number)) > 1]}


def repeat_lines(dataset: Dataset) -> list[str]:
    """Return a line for each kind, naming a few where the images have names."""
    parts = {"train": dataset.train, "test": dataset.test}
    found = _repeated({split: part.ids for split, part in parts.items()}, {split: part.labels for split, part in parts.items()})
    lines = []
    for kind, images in found.items():
        if len(images):
            said = "1 image is" if len(images) == 1 else f"{len(images):,} images are"
            examples = "; ".join(filter(None, (_places(dataset, image) for image in images[:_SHOWN])))
            more = "; …" if examples and len(images) > _SHOWN else ""
            lines.append(f"{said} {kind}" + (f" ({examples}{more})" if examples else ""))
    return lines


def _places(dataset: Dataset, image: bytes) -> str:
    """Return where an image is, by name."""
    found = []
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        if part.names is not None:
            found += [
                shown(f"{split}/{part.names[position].decode()}") for position in np.flatnonzero(part.ids == image)[:_SHOWN]
            ]
    return " = ".join(found)
