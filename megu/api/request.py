"""Specify which samples of a data set are to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.data.arrays import Dataset
from megu.data.splits import ForgetParams, ForgetSplit, Scenario, make_split
from megu.unlearning.labels.calibration_set import CalibrationParams


@dataclass(frozen=True)
class Subset:
    """A subset of a data set's training images. positions: int64 (N,), ascending."""

    data: Dataset
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C), a copy."""
        return np.asarray(self.data.train.images[self.positions])

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 (N,)."""
        return np.asarray(self.data.train.labels[self.positions])


@dataclass(frozen=True)
class Split:
    """A request applied to a data set. positions: those of the images to forget and to retain, in train and in test."""

    data: Dataset
    positions: ForgetSplit

    @property
    def forget(self) -> Subset:
        return Subset(self.data, self.positions.forget)

    @property
    def retain(self) -> Subset:
        return Subset(self.data, self.positions.retain)


def forget(
    data: Dataset,
    *,
    classes: Sequence[str] = (),
    subclasses: Sequence[str] = (),
    ids: Sequence[str] = (),
    files: Sequence[str] = (),
    count: int = 0,
    seed: int = 0,
) -> Split:
    """Split a data set into what is to be forgotten and what is to be retained.

    Parameters
    ----------
    classes, subclasses: names of whole classes, or of finer classes in a data set labelled by superclass.
    ids, files: single training images, by id (32 hex characters) or, in a data set that came as files, by name.
    count: how many training images to draw at random with ``seed``, instead of naming any.

    Raises
    ------
    MeguError: nothing is named, a name is unknown, or nothing would be left to retain.
    """
    named = {"classes": classes, "subclasses": subclasses, "ids": ids, "files": files}
    for name, entries in named.items():
        if isinstance(entries, str):
            raise MeguError(f"forget: {name} = {entries!r} is not a list", f"give {name}=[{entries!r}]")
    kinds = [bool(classes), bool(subclasses), bool(ids or files), bool(count)]
    if not any(kinds) or (count and sum(kinds) > 1) or count < 0:
        raise MeguError(
            "forget: name classes, subclasses, ids or files, or else a count of images", 'as in classes=["Sneaker"]'
        )
    if count:
        return Split(data, make_split(data, ForgetParams(scenario="random", count=count), seed))
    listed: dict[str, Any] = {name: tuple(entries) for name, entries in named.items()}
    if subclasses and sum(kinds) == 1:
        return Split(data, make_split(data, ForgetParams(scenario="subclass", classes=listed["subclasses"]), seed))
    scenario: Scenario = "class" if classes and sum(kinds) == 1 else "ids" if sum(kinds) == 1 else "mixed"
    return Split(data, make_split(data, ForgetParams(scenario=scenario, **listed), seed))


def calibrating(share: float) -> CalibrationParams:
    """Return the parameters for a share of the test images to calibrate on; raise `MeguError` for a share out of range."""
    try:
        return CalibrationParams(share=share)
    except ValueError as error:
        raise MeguError(f"calibration: {error}", "for example calibration=0.3") from None
