"""Unlearning and evaluating as functions, on tiny images: what is made, what stays, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import COUNT
from tiny import images
from torch import nn

import megu
from megu.api.request import Split, Subset
from megu.core.errors import MeguError
from megu.data.arrays import Dataset
from megu.labeling.protocol import Identity, Judgement, Question
from megu.training.loop import TrainParams, predict
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.perturbing import PerturbParams
from megu.unlearning.labels.targets import targets
from megu.unlearning.labels.transition import transition_matrix

TINY: dict[str, Any] = {"steps": 40, "batch_size": 16, "lr": 0.03}
SIMILARITY = np.array([[9.0, 1, 2, 6], [1, 9, 5, 2], [1, 7, 9, 2], [5, 2, 1, 9]])


def of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    made = images(count, seed=seed)
    return made.images.permute(0, 2, 3, 1).contiguous().numpy(), made.labels.numpy()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return megu.Dataset.of(of(COUNT, 0), of(80, 1), list("abcd"), mean=(0.3,), std=(0.25,))


@pytest.fixture(scope="module")
def split(data: Dataset) -> Split:
    return megu.forget(data, classes=["c"])


def unlearn(model: nn.Module, split: Split, **more: Any) -> Any:
    given = {"forget": split.forget, "retain": split.retain, "labeler": SIMILARITY, "device": "cpu", **more}
    return megu.unlearn(model, **given)


def test_the_class_is_forgotten_the_rest_is_not_and_the_given_model_stays(
    original: nn.Module,
    data: Dataset,
    split: Split,
) -> None:
    before = copy.deepcopy(original.state_dict())
    found = unlearn(original, split, **TINY)
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    metrics = megu.evaluate(found.model, data, split, device="cpu").metrics
    assert metrics["Af"] == 0
    assert metrics["Ar"] > 90
    assert list(found.seconds) == ["predict", "noise", "unlearn"]
    assert found.passes > 40 * 16
    assert found.chosen["lr"] == TINY["lr"]


def test_what_is_taught_is_what_the_pipeline_teaches(original: nn.Module, data: Dataset, split: Split) -> None:
    """The stages hand the same to `megu.unlearning.labels.targets`."""
    found = unlearn(original, split, **TINY, seed=3)
    logits = [predict(original, images(count, seed=seed)).logits.numpy() for count, seed in ((COUNT, 0), (80, 1))]
    expected = targets(
        data,
        split.forget.positions,
        *logits,
        transition_matrix(SIMILARITY),
        (2,),
        PerturbParams(),
        CalibrationParams(),
        seed=3,
    )
    np.testing.assert_array_equal(found.targets.targets, expected.targets)


class Asked:
    """A labeler that counts what it is asked, and says what `SIMILARITY` says."""

    identity = Identity("asked", "a test", "1", "")

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def judge(self, question: Question) -> Judgement:
        self.questions.append(question)
        said = SIMILARITY[question.exemplar_class] / 10
        return Judgement(said, np.zeros(said.shape, dtype=bool))


def test_an_own_labeler_is_asked_once_about_every_class(original: nn.Module, split: Split) -> None:
    labeler = Asked()
    more = {"steps": 1, "batch_size": 16, "lr": 0.01}
    with pytest.raises(MeguError, match="has 50 distinct training images, 60 are needed"):
        unlearn(original, split, labeler=labeler, **more)
    assert not labeler.questions
    rich = megu.Dataset.of(of(2 * COUNT, 0), of(80, 1), mean=(0.3,), std=(0.25,))
    request = megu.forget(rich, classes=["2"])
    found = unlearn(original, request, labeler=labeler, **more)
    assert [(len(question.concepts), len(question.exemplars)) for question in labeler.questions] == [(4, 80)]
    said = unlearn(original, request, labeler=SIMILARITY, **more)
    np.testing.assert_allclose(found.targets.targets, said.targets.targets, atol=1e-6)


def test_a_plain_network_comes_back_as_one(data: Dataset, split: Split) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    found = unlearn(plain, split, labeler=None, method="finetune", epochs=1, batch_size=16)
    assert isinstance(found.model, nn.Sequential)
    assert found.targets is None
    assert not torch.equal(found.model[1].weight, plain[1].weight)


def test_a_method_that_trains_from_the_start_gets_recipe_and_network(original: nn.Module, split: Split) -> None:
    torch.manual_seed(1)
    recipe = TrainParams(epochs=1, batch_size=50, augment="none")
    found = unlearn(original, split, method="retrain", recipe=recipe, fresh=lambda: copy.deepcopy(original))
    assert found.passes == 150


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a method that there is not": ({"method": "magic"}, "there is no method 'magic'"),
    "a parameter that there is not": ({"step": 3}, "no parameter 'step': did you mean steps"),
    "a value out of range": ({"steps": 0}, "at least 1"),
    "a labeler that there is not": ({"labeler": "gemma"}, "there is no labeler 'gemma'"),
    "a matrix of another size": ({"labeler": np.eye(3)}, "give 4 x 4"),
    "a retrain without a recipe": ({"method": "retrain"}, "pass recipe and fresh"),
    "a fresh network that is not there": ({"method": "bad_teacher", "epochs": 1}, "needs context.fresh: give it fresh"),
    "a share of all test images": ({"calibration": 1.0}, "between 0 and 0.9"),
    "a network of other classes": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, "answers 3 classes"),
    "a device that there is not": ({"device": "cuda:77"}, "CUDA devices"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, original: nn.Module, split: Split) -> None:
    changed, said = REFUSED[case]
    with pytest.raises(MeguError, match=said):
        unlearn(changed.pop("model", original) if "model" in changed else original, split, **changed)


def test_sets_that_overlap_or_are_of_two_data_sets_are_refused(original: nn.Module, data: Dataset, split: Split) -> None:
    both = Subset(data, np.arange(COUNT))
    with pytest.raises(MeguError, match="50 images are in both forget and retain"):
        unlearn(original, split, retain=both)
    other = megu.Dataset.of(of(COUNT, 0), of(80, 1))
    with pytest.raises(MeguError, match="two data sets"):
        unlearn(original, split, retain=megu.forget(other, classes=["2"]).retain)
    with pytest.raises(MeguError, match="another data set"):
        megu.evaluate(original, other, split)


def test_a_model_against_itself_has_no_gap_and_the_gate_judges_it(original: nn.Module, data: Dataset, split: Split) -> None:
    scores = megu.evaluate(original, data, split, reference=original, original=original, device="cpu")
    assert scores.gap == 0
    assert scores.reference == scores.metrics
    assert scores.values["test_images"] == {"measured": 56, "calibration": 24}
    assert megu.gate(scores).decision == "needs a person"
    assert megu.gate(scores, champion="1").decision == "pass"
    assert megu.gate(scores, champion="1", min_seeds=2).decision == "fail"
    with pytest.raises(MeguError, match="gate: min_seeds = 0"):
        megu.gate(scores, min_seeds=0)


def test_without_a_retrain_the_gate_judges_by_held_out_images(original: nn.Module, data: Dataset, split: Split) -> None:
    scores = megu.evaluate(original, data, split, original=original, device="cpu")
    assert (scores.gap, scores.reference) == (None, None)
    assert {"Af_held_out", "MIA_held_out"} <= set(scores.metrics)
    assert megu.gate(scores, min_images=1).decision == "fail", "it knows the class still"
