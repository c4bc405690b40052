"""A given model: whatever file it came in, it is checked against the data set and the recipe before anything uses it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megu import tracking
from megu.config.tree import parse
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.stages import Result
from megu.data.arrays import save
from megu.models import build
from megu.training.loop import TrainParams
from megu.training.weights import ModelInfo, digest, load_model, save_weights
from tasks import reference
from tasks.original import take
from tasks.run import inputs


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


def test_weights_of_another_type_are_stored_as_they_are_used(project: Project, data: Result, tmp_path: Path) -> None:
    model = build("resnet-compact", 3, 1, seed=4)
    half = copy.deepcopy(model).half()
    save_weights(tmp_path / "a.safetensors", half, ModelInfo("resnet-compact", 3, 1))
    weights, outcome = give(project, data, tmp_path / "a.safetensors")
    assert outcome.files["weights"] != weights
    stored, _ = load_model(project.store.checked(outcome.files["weights"]))
    assert digest(stored) == outcome.values["weights_digest"] == digest(half.float())


def trained(project: Project, name: str, seed: int = 0, classes: int = 3) -> str:
    """A weights file in the project."""
    made = ModelInfo("resnet-compact", classes, 1)
    save_weights(project.root / name, build("resnet-compact", classes, 1, seed=seed), made)
    return name


@pytest.mark.parametrize("section", inputs.MODELS)
@pytest.mark.parametrize("setting", ["weights", "model"])
def test_a_given_model_is_looked_at_before_anything_runs(
    project: Project, data: Result, monkeypatch: pytest.MonkeyPatch, section: str, setting: str
) -> None:
    """The message has the file or model as the user knows it, also where a copy is read."""
    path = project.root / "mine.safetensors"
    model = build("resnet-compact", 3, 1, seed=0)
    with torch.no_grad():
        model.get_parameter("head.bias")[1] = float("nan")
    save_weights(path, model, ModelInfo("resnet-compact", 3, 1))
    monkeypatch.setattr(tracking, "fetch_model", lambda uri, folder, *, home, asked: path)
    monkeypatch.setattr(tracking, "identity", lambda uri, *, home, asked: ("", None))
    given = "mine.safetensors" if setting == "weights" else "models:/mine@champion"
    config = parse({"data": {"name": "toy"}, "forget": {"classes": ["a"]}, section: {setting: given}})
    with pytest.raises(MeguError) as raised:
        inputs.check_provided(project, config)
    assert str(raised.value).startswith(f"{section}.{setting}: {given}: head.bias has 1 of 3 numbers that are not finite")
    trained(project, "mine.safetensors", classes=4)
    with pytest.raises(MeguError, match=rf"^{section}\.{setting}: {given}: the given model is .* 4 classes, not"):
        inputs.check_provided(project, config)


@pytest.mark.parametrize("section", inputs.MODELS)
@pytest.mark.parametrize(
    ("setting", "given", "said"),
    [
        ("weights", "none.safetensors", "there is no file none.safetensors"),
        ("model", "models:/none/1", "there is no models:/none/1"),
        ("model", "none", "'none' is not a registered model"),
    ],
)
def test_a_model_that_is_not_there_is_named_by_its_key(
    project: Project, data: Result, section: str, setting: str, given: str, said: str
) -> None:
    config = parse({"data": {"name": "toy"}, "forget": {"classes": ["a"]}, section: {setting: given}})
    with pytest.raises(MeguError) as raised:
        inputs.check_provided(project, config)
    assert str(raised.value).startswith(f"{section}.{setting}: {said}")


def test_a_given_retrain_that_is_the_original_is_refused_by_name(project: Project, data: Result, tmp_path: Path) -> None:
    """Also as another kind of file: what counts are the weights."""
    values = {
        "data": {"name": "toy"},
        "forget": {"classes": ["a"]},
        "original": {"weights": trained(project, "one.safetensors")},
    }
    torch.save(build("resnet-compact", 3, 1, seed=0).state_dict(), project.root / "same.pt")
    for same in ("one.safetensors", "same.pt"):
        with pytest.raises(MeguError) as raised:
            inputs.check_provided(project, parse({**values, "reference": {"weights": same}}))
        assert str(raised.value).startswith(f"reference.weights: {same} is the original itself")
        assert "\n" not in str(raised.value)
    inputs.check_provided(project, parse({**values, "reference": {"weights": trained(project, "other.safetensors", seed=1)}}))


def test_a_given_retrain_is_taken_as_a_given_original_is(project: Project, data: Result) -> None:
    weights = project.store.put_file(project.root / trained(project, "a.safetensors"), "safetensors")
    params = TrainParams(arch="resnet-compact")
    original = Result("original", {}, {}, {"weights_digest": "0" * 64}, {}, 0.0, {})
    taken = reference.take(project, data, data, original, weights, params)
    assert taken == take(project, data, weights, params)
    with pytest.raises(MeguError, match="the given retrain is the original itself"):
        reference.take(project, data, data, replace(original, values=taken.values), weights, params)


def test_a_function_that_loads_the_given_original_is_refused_before_anything_runs(
    project: Project, data: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "tuned.py").write_text(
        "import torch, torch.nn as nn\n"
        "def build(k, c):\n"
        "    made = nn.Sequential(nn.Flatten(), nn.Linear(64 * c, 5), nn.ReLU(), nn.Linear(5, k))\n"
        "    made[1].weight.data.copy_(torch.load('mine.pt')['1.weight'])\n"
        "    return made\n"
    )
    monkeypatch.chdir(project.root)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    torch.save(net.state_dict(), project.root / "mine.pt")
    values = {"data": {"name": "toy"}, "forget": {"classes": ["a"]}, "train": {"arch": "tuned:build"}}
    for given in ({}, {"original": {"weights": "mine.pt"}}, {"reference": {"weights": "mine.pt"}}):
        with pytest.raises(MeguError, match=r"^train\.arch: tuned:build makes no new network: 1\.weight is the same"):
            inputs.check_provided(project, parse({**values, **given}))
    values["train"] = {"arch": "tuned:build", "pretrained": True}
    inputs.check_provided(project, parse(values))
    inputs.check_provided(project, parse({**values, "original": {"weights": "mine.pt"}}))
