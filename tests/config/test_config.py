from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from megu.config import tree as config
from megu.config.tree import Config
from megu.core.errors import MeguError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_projects_own_file_is_valid() -> None:
    loaded = config.load(REPOSITORY / "params.yaml")
    assert loaded.forget.classes == ("Sneaker",)
    assert loaded.unlearn.method == "megu"


def test_what_is_printed_can_be_read_again() -> None:
    everything = Config().to_json()
    assert config.parse(yaml.safe_load(yaml.safe_dump(everything))) == Config()


def test_a_labelers_section_is_its_own() -> None:
    loaded = config.parse({"labeling": {"kind": "ollama", "exemplars": 4, "descriptions": {"sea": "a seascape"}}})
    assert loaded.labeling.kind == "ollama"
    assert loaded.labeling.params.exemplars == 4
    assert config.parse(yaml.safe_load(yaml.safe_dump(loaded.to_json()))) == loaded


def test_an_empty_section_means_its_defaults() -> None:
    assert config.parse({"noise": None, "unlearn": None}) == Config()


INVALID = {
    "unknown section": ({"nois": {}}, "unknown key nois", "did you mean noise?"),
    "unknown key": ({"noise": {"step": 3}}, "unknown key noise.step", "did you mean steps?"),
    "unknown method key": ({"unlearn": {"alhpa": 0.3}}, "unknown key unlearn.alhpa", "did you mean alpha?"),
    "unknown key of another method": ({"unlearn": {"method": "scrub", "mstep": 1}}, "unknown key unlearn.mstep", "msteps?"),
    "another method's key": ({"unlearn": {"method": "ssd", "epochs": 1}}, "unknown key unlearn.epochs", "alpha, lam"),
    "unknown labeler": ({"labeling": {"kind": "olama"}}, "no such kind", "did you mean ollama?"),
    "labeling is not a section": ({"labeling": 3}, "labeling", "section"),
    "unknown labeler key": (
        {"labeling": {"kind": "ollama", "strateg": 1}},
        "unknown key labeling.strateg",
        "did you mean strategy?",
    ),
    "another labeler's key": (
        {"labeling": {"strategy": "ranked"}},
        "unknown key labeling.strategy",
        "it is a key of labeling.kind=ollama",
    ),
    "strategy": ({"labeling": {"kind": "ollama", "strategy": "all"}}, "labeling.strategy", "'pairwise'"),
    "small images": ({"labeling": {"kind": "ollama", "image_size": 28}}, "labeling.image_size = 28", "224"),
    "concurrency": ({"labeling": {"kind": "ollama", "concurrency": 0}}, "labeling.concurrency = 0", "between 1 and 64"),
    "time-out": ({"labeling": {"kind": "ollama", "call_timeout": 0}}, "labeling.call_timeout = 0", "above 0"),
    "override": ({"labeling": {"kind": "ollama", "override": ["all"]}}, "labeling.override", "symmetry"),
    "model": ({"labeling": {"kind": "ollama", "model": ""}}, "labeling.model", "gemma3:4b"),
    "unknown method": ({"unlearn": {"method": "megus"}}, "no such method", "did you mean megu?"),
    "out of range": ({"noise": {"steps": 0}}, "noise.steps = 0", "between 1 and"),
    "out of range in the method": ({"unlearn": {"alpha": 1.5}}, "unlearn.alpha = 1.5", "between 0 and 1"),
    "wrong type": ({"train": {"epochs": "many"}}, "train.epochs = 'many'", "integer"),
    "not a section": ({"noise": 3}, "noise", ""),
    "unlearn is not a section": ({"unlearn": [1]}, "unlearn", "section"),
    "negative seed": ({"seed": -1}, "seed = -1", "0"),
    "unknown device": ({"device": "gpu"}, "device = 'gpu'", ""),
    "unknown scenario": ({"forget": {"scenario": "clas"}}, "forget.scenario", "'class'"),
    "both originals": ({"original": {"weights": "a", "model": "models:/b/1"}}, "original.model", "left out"),
    "both retrains": ({"reference": {"weights": "a", "model": "models:/b/1"}}, "reference.model", "left out"),
    "several given retrains": (
        {"reference": {"weights": "a", "repeats": 2}},
        "reference.repeats = 2",
        "1 when a retrain is given",
    ),
    "a given retrain and none": ({"reference": {"model": "models:/b/1", "enabled": False}}, "reference.enabled", "true when a"),
    "data outside the folder": ({"data": {"name": "../elsewhere"}}, "data.name", "data/"),
    "unknown label": ({"perturbing": {"label": "hard"}}, "perturbing.label", "'rank'"),
    "sharpness": ({"perturbing": {"sharpness": 0}}, "perturbing.sharpness = 0", "auto"),
    "unknown architecture": ({"train": {"arch": "resnet"}}, "train.arch", "resnet-compact"),
    "odd shadows": ({"evaluation": {"shadows": 3}}, "evaluation.shadows = 3", "even"),
    "relearn steps": ({"evaluation": {"relearn_steps": 0}}, "evaluation.relearn_steps = 0", "between 1 and"),
    "tolerance": ({"evaluation": {"relearn_tolerance": 100}}, "evaluation.relearn_tolerance = 100", "below 100"),
    "deep steps": ({"evaluation": {"deep_steps": 0}}, "evaluation.deep_steps = 0", "between 1 and"),
    "deep margin": ({"gate": {"deep_margin": 101}}, "gate.deep_margin = 101", "between 0 and 100"),
    "unknown evaluation key": ({"evaluation": {"shadow": 2}}, "unknown key evaluation.shadow", "did you mean shadows"),
    "alias": ({"registry": {"alias": "a/b"}}, "registry.alias", "without"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_file_gets_one_line_that_names_key_and_rule(case: str) -> None:
    values, what, rule = INVALID[case]
    with pytest.raises(MeguError) as caught:
        config.parse(values, "params.yaml")
    said = str(caught.value)
    assert what in said
    assert rule in said
    assert said.startswith("params.yaml: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [("seed: [", "not YAML"), ("- 1\n", "no sections"), ("\tseed: 1\n", "not YAML"), ("\x00", "not YAML")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(MeguError, match=said):
        config.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="no configuration file"):
        config.load(tmp_path / "other.yaml")


def test_overrides_change_one_value_and_keep_the_rest() -> None:
    values = {"forget": {"scenario": "class", "classes": ["Sneaker"]}, "seed": 0}
    merged = config.settled(config.merged(values, ["forget.classes=[Bag, Shirt]", "seed=3", "unlearn.alpha=0.6"]))
    assert merged == {"forget": {"scenario": "class", "classes": ["Bag", "Shirt"]}, "seed": 3, "unlearn": {"alpha": 0.6}}
    assert values["seed"] == 0
    assert values["forget"]["classes"] == ["Sneaker"]


@pytest.mark.parametrize("override", ["seed", "=3", "a.b.c=1", ".x=1", "seed.x=1", "forget.classes=[Bag"])
def test_a_wrong_override_is_said(override: str) -> None:
    with pytest.raises(MeguError, match="--set"):
        config.merged({"seed": 0}, [override])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reference": {"weights": "a.pt"}}, "reference.weights: a.pt is a retrain of one forget set"),
        ({"reference": {"model": "models:/b@good"}}, "reference.model: models:/b@good is a retrain of one forget set"),
        ({"registry": {"enabled": False}}, "registry.enabled is false"),
    ],
)
def test_what_cannot_be_where_requests_choose_the_forget_set_is_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(MeguError) as raised:
        config.parse(values).for_requests()
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
    config.parse({"original": {"weights": "a.pt"}, "reference": {"repeats": 3}}).for_requests()


@pytest.mark.parametrize(("key", "near"), [("labeling.kind=prototipe", "prototype"), ("unlearn.method=finetun", "finetune")])
def test_a_choice_that_there_is_not_is_said_where_it_was_made(key: str, near: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("forget: {classes: [Bag]}\n")
    name, _, value = key.partition("=")
    with pytest.raises(MeguError) as raised:
        config.load(tmp_path / "params.yaml", [key])
    said = f"--set {key}: {name} = {value!r}: there is no such {name.partition('.')[2]}, did you mean {near}?"
    assert str(raised.value).startswith(said)
