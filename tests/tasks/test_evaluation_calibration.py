"""The calibration images are in no metric: what a model answers to them changes nothing that is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megu.core.project import Project
from megu.core.stages import Outcome, Result
from megu.data.arrays import Dataset, coarse_view, load, save, save_view
from megu.data.splits import ForgetParams, make_split
from megu.evaluation.attacks.shadows import half
from megu.evaluation.condensed import condense
from megu.unlearning.labels.calibration_set import CalibrationParams, left_to_measure, of_dataset
from megu.unlearning.labels.perturbing import PerturbParams
from tasks.evaluation.metrics import evaluate
from tasks.perturbing import perturb

PARAMS = CalibrationParams(share=0.4)
TRAIN, TEST = 60, 48


def result(values: dict[str, Any] | None = None, **files: Any) -> Result:
    return Result("a stage", {}, files, values or {}, {}, 0.0, {})


@pytest.fixture(params=["plain", "with finer classes"])
def data(request: pytest.FixtureRequest, project: Project) -> Dataset:
    """Three classes; or six finer ones, two of each class."""
    images = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 4, 4, 1), dtype=np.uint8)
    finer = request.param == "with finer classes"
    labels = np.arange(TRAIN + TEST) % (6 if finer else 3)
    parts = {"train": (images[:TRAIN], labels[:TRAIN]), "test": (images[TRAIN:], labels[TRAIN:])}
    if not finer:
        return save(project.data("toy"), name="toy", classes="abc", **parts)
    whole = save(project.root / "fine", name="fine", classes="uvwxyz", coarse="aabbcc", **parts)
    save_view(project.data("toy"), coarse_view(whole), "toy")
    return load(project.data("toy"))


class Measured:
    """A run of which only the answers are made up."""

    def __init__(self, project: Project, data: Dataset, retrains: int) -> None:
        self.project, self.data, random = project, data, np.random.default_rng(1)
        self.split = make_split(data, ForgetParams(classes=("b",)), seed=0)
        positions = {name: getattr(self.split, name) for name in ("forget", "retain", "test_forget", "test_retain")}
        self.dataset = result({"name": "toy", "per_class": None, "classes": list(data.classes)})
        self.positions = result({"scenario": "class", "classes": [1]}, positions=project.store.put_arrays(positions))
        self.answers = [random.normal(size=(TRAIN + TEST, 3)).astype(np.float32) for _ in range(2 + retrains)]
        self.shadows = random.normal(size=(2, TRAIN + TEST)) - 2
        self.apart = of_dataset(data, PARAMS)

    def evaluated(self, calibration: CalibrationParams = PARAMS) -> Outcome:
        store = self.project.store
        whole = {"train_logits": self.answers[0][:TRAIN], "test_logits": self.answers[0][TRAIN:]}
        before = result(predictions=store.put_arrays(whole))
        after, *retrained = (
            result(condensed=store.put_arrays(vars(condense(said[:TRAIN], said[TRAIN:], self.split.forget))))
            for said in self.answers[1:]
        )
        shadows = [
            result(
                shadow=store.put_arrays(
                    {
                        "train": said[:TRAIN],
                        "test": said[TRAIN:],
                        "seen_train": half(TRAIN, number, 0),
                        "seen_test": half(TEST, number, 0, "test"),
                    }
                )
            )
            for number, said in enumerate(self.shadows)
        ]
        return evaluate(
            self.project, self.dataset, self.positions, before, after, retrained, shadows, [], [], None, calibration
        )

    def disturb(self, rows: Any, seed: int = 2) -> None:
        """Every model and every shadow answers something else to the test images ``rows``."""
        random = np.random.default_rng(seed)
        for said in self.answers:
            said[TRAIN + np.asarray(rows)] = 9 * random.normal(size=(len(rows), 3))
        self.shadows[:, TRAIN + np.asarray(rows)] = -9 * random.random((2, len(rows)))


@pytest.fixture(params=[2, 0], ids=["retrains", "no retrain"])
def measured(request: pytest.FixtureRequest, project: Project, data: Dataset) -> Measured:
    return Measured(project, data, request.param)


def test_no_metric_changes_with_the_answers_to_the_calibration_images(measured: Measured) -> None:
    """Nor does any distribution; of the original, the unlearned model, every retrain and the shadows."""
    first = measured.evaluated()
    assert {"Ar", "Af", "MIA", "RMIA_AUC", "test_accuracy"} <= set(first.values["unlearned"]["metrics"])
    measured.disturb(measured.apart)
    again = measured.evaluated()
    assert again.values == first.values
    assert again.files == first.files


def test_every_other_test_image_is_measured(measured: Measured) -> None:
    first, left = measured.evaluated(), np.delete(np.arange(TEST), measured.apart)
    entropies = {first.values["unlearned"]["metrics"]["entropy_test"]}
    for row in left:
        measured.disturb([row], seed=int(row))
        entropies.add(measured.evaluated().values["unlearned"]["metrics"]["entropy_test"])
    assert len(entropies) == 1 + len(left)


def test_without_a_share_all_are_measured(measured: Measured) -> None:
    none = CalibrationParams(share=0.0)
    first = measured.evaluated(none)
    measured.disturb(measured.apart[:1])
    assert measured.evaluated(none).values != first.values
    sizes = [len(measured.project.store.arrays(found.files["distributions"])["unlearned/entropy/test"])
             for found in (first, measured.evaluated())]  # fmt: skip
    assert sizes == [TEST, TEST - len(measured.apart)]


def test_the_accuracies_are_of_the_measured_images_by_hand(measured: Measured) -> None:
    """The unlearned model is right on the measured images of class b alone: Af is 100, Ar 0, whatever it says to the calibration images."""
    labels, left = measured.data.test.labels, np.delete(np.arange(TEST), measured.apart)
    said = np.where(np.isin(np.arange(TEST), left) & (labels != 1), (labels + 1) % 3, labels)
    measured.answers[1][TRAIN:] = np.eye(3)[said]
    found = measured.evaluated().values["unlearned"]
    assert (found["metrics"]["Af"], found["metrics"]["Ar"]) == (100.0, 0.0)
    assert found["per_class"] == [0.0, 100.0, 0.0]
    assert measured.evaluated().values["test_images"] == {"measured": len(left), "calibration": len(measured.apart)}
    assert found["metrics"]["test_accuracy"] == pytest.approx(100 * float((labels[left] == 1).mean()))


def test_the_set_is_the_same_for_every_request_and_each_finer_class_has_its_share(data: Dataset, project: Project) -> None:
    """It is a function of the data set and the share: not of a seed, a method or what is to be forgotten."""
    found = of_dataset(data, PARAMS)
    kinds = data.test.labels if data.test.fine is None else data.test.fine
    of_each = TEST // len(np.unique(kinds))
    assert np.bincount(kinds[found]).tolist() == [round(0.4 * of_each)] * (TEST // of_each)
    for request, seed in ((ForgetParams(classes=("a",)), 0), (ForgetParams(scenario="random", count=9), 5)):
        split = make_split(data, request, seed)
        measured, loaded, positions = left_to_measure(data, split, PARAMS)
        assert measured.tolist() == np.delete(np.arange(TEST), found).tolist()
        for group in ("test_forget", "test_retain"):
            back = measured[getattr(positions, group)]
            assert back.tolist() == [at for at in getattr(split, group) if at not in set(found)]
        assert (positions.forget is split.forget, positions.retain is split.retain) == (True, True)
        assert len(loaded.test) == TEST - len(found)
        assert (loaded.test.ids == data.test.ids[measured]).all()
        assert loaded.train is data.train


def test_the_targets_are_calibrated_by_those_images_alone(measured: Measured) -> None:
    """What the original answers to a measured image decides no target; what it answers to a calibration image may."""

    def made() -> Outcome:
        store, said = measured.project.store, measured.answers[0]
        answers = {"train_logits": said[:TRAIN], "test_logits": said[TRAIN:]}
        return perturb(
            measured.project,
            measured.dataset,
            measured.positions,
            result(predictions=store.put_arrays(answers)),
            result(transition=store.put_arrays({"T": np.array([[0.6, 0.2, 0.1], [0.3, 0.5, 0.3], [0.1, 0.3, 0.6]])})),
            PerturbParams(),
            PARAMS,
            seed=0,
        )

    first = made()
    assert first.values["calibration_images"] == len(measured.apart)
    measured.disturb(np.delete(np.arange(TEST), measured.apart))
    assert made().files == first.files
    measured.disturb(measured.apart)
    assert made().files != first.files
