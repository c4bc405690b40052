from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.evaluation import (
    compared,
    entropies,
    gap,
    js_divergence,
    mean_of,
    measured_on,
    score,
    single_samples,
    softmax,
    spread,
    tow,
)
from megu.evaluation.condensed import condense
from megu.evaluation.statistics import interval


def sure(*answers: int, classes: int = 3) -> np.ndarray:
    """Logits of a model that is certain of these answers."""
    return 100.0 * np.eye(classes)[list(answers)]


def test_a_class_request_by_hand() -> None:
    """Forget class 2. Test: labels 0 0 1 2 2, answers 0 1 1 2 0: Ar 2 of 3, Af 1 of 2. Train: labels 0 1 2 2, answers 0 1 0 0."""
    split = SimpleNamespace(
        forget=np.array([2, 3]), retain=np.array([0, 1]), test_forget=np.array([3, 4]), test_retain=np.array([0, 1, 2])
    )
    found = score(
        condense(sure(0, 1, 0, 0), sure(0, 1, 1, 2, 0), split.forget),
        np.array([0, 1, 2, 2]),
        np.array([0, 0, 1, 2, 2]),
        split,
        3,
    )  # type: ignore[arg-type]
    assert found.metrics["Ar"] == pytest.approx(200 / 3)
    assert found.metrics["Af"] == 50
    assert found.metrics["Ar_train"] == 100
    assert found.metrics["Af_train"] == 0
    assert found.metrics["test_accuracy"] == 60
    assert found.metrics["entropy_forget"] == pytest.approx(0)
    assert found.per_class == [50, 100, 50]
    assert {name: len(values) for name, values in found.entropy.items()} == {"forget": 2, "retain": 2, "test": 5}
    np.testing.assert_allclose(found.confidence["test"], 1)


def test_a_random_request_marks_the_forgotten_training_images() -> None:
    split = SimpleNamespace(
        forget=np.array([0]), retain=np.array([1, 2]), test_forget=np.array([], dtype=int), test_retain=np.arange(2)
    )
    found = score(condense(sure(0, 1, 0), sure(0, 0), split.forget), np.array([0, 1, 2]), np.array([0, 1]), split, 4)  # type: ignore[arg-type]
    assert (found.metrics["Af"], found.metrics["Ar"]) == (100, 50)
    assert math.isnan(found.per_class[3])


def test_single_images_beside_a_class_are_marked_alone() -> None:
    """Forget class 2 (training images 2, 3: wrong) and the first image of class 0 (right), whose other image 4 stays."""
    split = SimpleNamespace(
        forget=np.array([0, 2, 3]), retain=np.array([1, 4]), test_forget=np.array([2]), test_retain=np.arange(2)
    )
    labels = np.array([0, 1, 2, 2, 0])
    found = score(condense(sure(0, 1, 0, 0, 0), sure(0, 1, 1), split.forget), labels, np.array([0, 1, 2]), split, 3)  # type: ignore[arg-type]
    assert found.metrics["Af_single"] == 100
    assert found.metrics["Af_train"] == pytest.approx(100 / 3)
    assert measured_on(split) == "test"  # type: ignore[arg-type]
    alone = SimpleNamespace(**{**vars(split), "forget": np.array([0]), "test_forget": np.array([], dtype=int)})
    assert (
        "Af_single"
        not in score(condense(sure(0, 1, 0, 0, 0), sure(0, 1, 1), alone.forget), labels, np.array([0, 1, 2]), alone, 3).metrics
    )  # type: ignore[arg-type]
    assert measured_on(alone) == "train"  # type: ignore[arg-type]


def test_a_finer_class_is_no_single_image() -> None:
    labels, fine = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2])
    assert single_samples(np.array([0, 1]), labels, fine).tolist() == []
    assert single_samples(np.array([0, 3]), labels, fine).tolist() == [0], "3 is all of class 1"
    assert single_samples(np.array([0, 1]), labels, None).tolist() == [0, 1]


def test_entropy_by_hand() -> None:
    np.testing.assert_allclose(entropies(np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3])), [0, math.log(2), math.log(3)])


@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-500, 500)))
def test_softmax_rows_sum_to_one(logits: np.ndarray) -> None:
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1)


def test_gap_and_tow_by_hand() -> None:
    mine = {"Ar": 90.0, "Af": 2.0, "MIA": 30.0, "Af_train": 10.0, "Ar_train": 90.0, "test_accuracy": 80.0}
    theirs = {"Ar": 91.0, "Af": 0.0, "MIA": 36.0, "Af_train": 0.0, "Ar_train": 100.0, "test_accuracy": 80.0}
    assert gap(mine, theirs) == pytest.approx((1 + 2 + 6) / 3)
    assert tow(mine, theirs) == pytest.approx(0.9 * 0.9 * 1.0)


def test_divergence_has_its_bounds_and_is_not_diluted_by_classes() -> None:
    assert js_divergence(sure(0, 1), sure(0, 1)) == pytest.approx(0, abs=1e-12)
    assert js_divergence(sure(0, 1, classes=100), sure(1, 0, classes=100)) == pytest.approx(math.log(2))


def test_the_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, t(.975, 2) = 4.3027, half width 4.3027 / sqrt 3."""
    found = interval([1, 2, 3])
    assert (found["mean"], found["std"], found["n"]) == (2, 1, 3)
    assert found["high"] - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found["low"] + found["high"] == pytest.approx(4)
    assert interval([1, 2, 3], 0.99)["high"] - 2 == pytest.approx(9.924843 / math.sqrt(3), rel=1e-6)
    assert math.isnan(interval([1.0])["low"])
    assert spread([{"Ar": 1.0}, {"Ar": 3.0}])["Ar"]["mean"] == 2


def test_several_runs_are_summarised_by_what_they_all_have() -> None:
    """A metric that one of them does not define is not known: leaving that one out would flatter it."""
    runs = [{"Ar": 1.0, "MIA": 2.0, "relearn_steps": 4}, {"Ar": 3.0, "relearn_steps": None}]
    assert set(spread(runs)) == {"Ar", "relearn_steps"}
    assert mean_of(runs)["Ar"] == 2
    assert math.isnan(mean_of(runs)["relearn_steps"])


def test_a_model_compared_with_itself_is_as_near_as_can_be() -> None:
    marks = {"Ar": 90.0, "Af": 2.0, "MIA": 30.0, "Af_train": 10.0, "Ar_train": 90.0, "test_accuracy": 80.0}
    said = condense(sure(0, 1, 2), sure(0, 1), np.array([1]))
    found = compared(marks, said, marks, said)
    assert found == pytest.approx({"gap": 0, "ToW": 1, "JS_forget": 0, "JS_test": 0}, abs=1e-12)
    other = condense(sure(0, 2, 2), sure(0, 0), np.array([1]))
    found = compared(marks, other, marks, said)
    assert (found["JS_forget"], found["JS_test"]) == pytest.approx((math.log(2), math.log(2) / 2))
