"""The calibration set: a fixed share of the test images, on which targets are calibrated (`megu.unlearning.labels.calibration`). It is
excluded from every metric, for all methods alike: no method is measured on images that it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.core.params import STRICT, check

if TYPE_CHECKING:
    from megu.data.arrays import Dataset
    from megu.data.splits import ForgetSplit

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CalibrationParams:
    """share: share of the test images of each class (of each finer class, where the data set has some), in [0, 0.9], that shows how sure a
    retrain would be and is left out of every metric. 0 means no calibration set: targets are then as sure as the original is of the
    forget set.
    """

    __pydantic_config__ = STRICT

    share: float = 0.3

    def __post_init__(self) -> None:
        check("share", self.share, 0 <= self.share <= 0.9, "between 0 and 0.9")


def select(groups: NDArray[Any], share: float) -> Positions:
    """Return the positions of the calibration set, ascending. groups: int (N,), each test image's (finer) class.

    They are spread evenly over each group in the data set's order, whatever the seed and the request. At least one image per group is
    measured.
    """
    chosen = []
    for group in np.unique(groups):
        of_group = np.flatnonzero(groups == group)
        count = min(round(share * len(of_group)), len(of_group) - 1)
        chosen.append(of_group[(np.arange(count) * len(of_group)) // max(count, 1)])
    return np.sort(np.concatenate(chosen)).astype(np.int64) if chosen else np.empty(0, dtype=np.int64)


def of_dataset(dataset: Dataset, params: CalibrationParams) -> Positions:
    """Return the positions of a data set's calibration set in its test split."""
    return select(dataset.test.labels if dataset.test.fine is None else dataset.test.fine, params.share)


def left_to_measure(dataset: Dataset, split: ForgetSplit, params: CalibrationParams) -> tuple[Positions, Dataset, ForgetSplit]:
    """Return the positions of the test images that are measured, the data set with these alone, and its split. The images themselves, which
    no metric uses, stay where they are on disk."""
    test = dataset.test
    measured = np.delete(np.arange(len(test)), of_dataset(dataset, params)).astype(np.int64)
    fine = None if test.fine is None else test.fine[measured]
    return (
        measured,
        replace(dataset, test=replace(test, labels=test.labels[measured], ids=test.ids[measured], fine=fine)),
        replace(
            split,
            test_forget=np.flatnonzero(np.isin(measured, split.test_forget)),
            test_retain=np.flatnonzero(np.isin(measured, split.test_retain)),
        ),
    )
