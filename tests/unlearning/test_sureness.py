"""benchmarks/sureness.py: what of the distance to the retrain is the draw of the calibration set."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from data_fixtures import toy

from megu.unlearning.labels.calibration_set import CalibrationParams, of_dataset


@pytest.fixture
def sureness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("sureness")


def test_the_draw_is_told_from_what_is_off_whichever_is_drawn_by_hand(sureness: ModuleType) -> None:
    """Two sets, two classes: off by 2 and -4, then by 4 and 4. Mean distance 3.5; of the classes' means 3 and 0, 1.5; deviations 1 and 4."""
    retrain = 30.0
    off = [[2.0, -4.0], [4.0, 4.0]]
    found = [[("bag", (0.0, 0.0, 0.0, 0.0, retrain + points, retrain)) for points in of_set] for of_set in off]
    assert sureness.chance(found) == (
        "over 2 other calibration sets the expected MIA is 3.5 points from the retrain's; whichever is drawn, 1.5 points a class, "
        "and from one to the next it varies by 2.5"
    )


def test_the_other_calibration_sets_are_of_the_same_size_and_drawn_anew(sureness: ModuleType) -> None:
    """Nine test images, three of each class; a share of 0.6 sets two of each apart."""
    data = toy()
    own, *others = sureness.calibration_sets(data, 0.6, 20, seed=0)
    assert own.tolist() == of_dataset(data, CalibrationParams(share=0.6)).tolist()
    assert all(np.bincount(data.test.labels[apart]).tolist() == [2, 2, 2] for apart in others)
    assert all(len(set(apart.tolist())) == 6 for apart in others)
    assert set(np.concatenate(others).tolist()) == set(range(9))
