"""The targets of a forget set, made from the data set, the original's predictions and the transition matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.unlearning.labels.calibration import Calibration, share_of_own
from megu.unlearning.labels.calibration_set import CalibrationParams, of_dataset
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams, perturb

if TYPE_CHECKING:
    from megu.data.arrays import Dataset


def unlabelled(dataset: Dataset, classes: Sequence[int]) -> list[int]:
    """Return the classes that no target may name, ascending: those that leave, and those that an erasure has emptied."""
    return sorted({*classes, *(set(range(dataset.num_classes)) - set(np.asarray(dataset.train.labels).tolist()))})


def targets(
    dataset: Dataset,
    forget: NDArray[np.int64],
    train_logits: NDArray[Any],
    test_logits: NDArray[Any],
    transition: NDArray[Any],
    classes: Sequence[int],
    params: PerturbParams,
    calibration: CalibrationParams,
    seed: int,
    likeness: Mapping[int, float] | None = None,
    overlap: NDArray[Any] | None = None,
) -> Perturbing:
    """Make the targets of the forget samples at the training positions ``forget`` (F,).

    train_logits, test_logits: (N, K) and (M, K), the original's, for every image. transition: (K, K). classes: those that leave.
    likeness: for each sub-class that leaves, by its number, how much it looks like the rest of its class (`subclass_likeness`).
    overlap: (K, K), for ``matrix: overlap``.
    """
    labels, gone, apart = dataset.train.labels, unlabelled(dataset, classes), of_dataset(dataset, calibration)
    held_out = Calibration.of(test_logits[apart], dataset.test.labels[apart], train_logits, labels, gone)
    like = np.full(len(forget), np.nan)
    for finer, share in (likeness or {}).items():
        like[np.asarray(dataset.train.fine)[forget] == finer] = share
    return perturb(transition, train_logits[forget], labels[forget], gone, params, held_out, seed, like, overlap)


def subclass_likeness(
    dataset: Dataset, names: Sequence[str], similarity: NDArray[Any], classes: Sequence[int]
) -> dict[int, float]:
    """Return, for each sub-class in ``names``, by its number, the share of the rest of its own class in what it looks like, in [0, 1].

    similarity: (K + len(names), …), a labeler's, with these as classes (`megu.data.arrays.set_out`). classes: those that leave.
    """
    assert dataset.fine is not None, "a data set of finer classes"
    gone, found = unlabelled(dataset, classes), {}
    for row, name in enumerate(names, start=dataset.num_classes):
        finer = dataset.fine.index(name)
        own = int(np.asarray(dataset.train.labels)[np.asarray(dataset.train.fine) == finer][0])
        found[finer] = share_of_own(similarity[row, : dataset.num_classes], own, gone)
    return found
