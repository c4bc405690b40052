"""A given model: whatever file it came in, it is checked against the data set and the recipe before anything uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from megu.data.arrays import save
from megu.errors import MeguError
from megu.models import build
from megu.project import Project
from megu.stages import Result
from megu.training import TrainParams
from megu.weights import ModelInfo, digest, load_model, save_weights
from tasks.original import take


@pytest.fixture
def data(project: Project) -> Result:
    images = np.zeros((6, 8, 8, 1), dtype=np.uint8), np.arange(6) % 3
    save(project.data("toy"), name="toy", classes="abc", train=images, test=images)
    return Result("dataset", {}, {}, {"name": "toy"}, {}, 0.0, {})


def give(project: Project, data: Result, path: Path, arch: str = "resnet-compact"):  # type: ignore[no-untyped-def]
    weights = project.store.put_file(path, path.suffix.removeprefix("."))
    return weights, take(project, data, weights, TrainParams(arch=arch))


def test_a_described_file_is_taken_as_it_is(project: Project, data: Result, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, build("resnet-compact", 3, 1, seed=4), ModelInfo("resnet-compact", 3, 1))
    weights, outcome = give(project, data, path)
    assert outcome.files["weights"] == weights


@pytest.mark.parametrize("arch", ["resnet-compact", "vit-tiny"])
def test_a_state_dictionary_becomes_a_described_file(project: Project, data: Result, tmp_path: Path, arch: str) -> None:
    model = build(arch, 3, 1, seed=4, image_size=(8, 8))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    _, outcome = give(project, data, tmp_path / "a.pth", arch)
    loaded, info = load_model(project.store.checked(outcome.files["weights"]))
    assert info == ModelInfo.of(arch, 3, (1, 8, 8))
    assert digest(loaded) == digest(model) == outcome.values["weights_digest"]


@pytest.mark.parametrize(
    ("info", "arch", "said", "fix"),
    [
        (ModelInfo("resnet-compact", 10, 1), "resnet-compact", "10 classes, not", "give a model of this data set"),
        (ModelInfo("resnet-compact", 3, 3), "resnet-compact", "3 channels and 3 classes, not", "give a model of this data set"),
        (ModelInfo("vit-tiny", 3, 1, (12, 12)), "vit-tiny", "12 x 12 pixels, not", "give a model of this data set"),
        (ModelInfo("vit-tiny", 3, 1, (8, 8)), "resnet-compact", "is a vit-tiny", "set train.arch=vit-tiny"),
    ],
)
def test_a_model_that_does_not_match_is_one_line(
    project: Project, data: Result, tmp_path: Path, info: ModelInfo, arch: str, said: str, fix: str
) -> None:
    save_weights(tmp_path / "a.safetensors", info.build(), info)
    with pytest.raises(MeguError) as raised:
        give(project, data, tmp_path / "a.safetensors", arch)
    assert said in raised.value.what
    assert fix in raised.value.fix
    assert "\n" not in str(raised.value)


def test_a_state_dictionary_of_other_classes_is_said(project: Project, data: Result, tmp_path: Path) -> None:
    torch.save(build("resnet-compact", 10, 1, seed=0).state_dict(), tmp_path / "a.pt")
    with pytest.raises(MeguError, match=r"does not fit the architecture resnet-compact \(size mismatch"):
        give(project, data, tmp_path / "a.pt")
