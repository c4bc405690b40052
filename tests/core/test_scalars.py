"""A text is what is written, wherever it is written: in params.yaml, with --set, in a benchmark's file, in the split that DVC makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from megu.bench import config as bench
from megu.bench.expansion import expand
from megu.config import redaction
from megu.config import tree as config
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.settings import scalars
from megu.core.settings.sections import section
from megu.data import splits
from megu.data.arrays import load, save
from megu.data.splits import make_split
from megu.promotion.params import RegistryParams

#: Names of classes that YAML takes for something else than a text, and two that it does not.
NAMES = [
    "0",
    "07",
    "no",
    "Yes",
    "null",
    "~",
    "2024-01-01",
    "2024-02-31",
    "1e3",
    "1.50",
    "0x1F",
    "12:30:45",
    "1_000",
    ".inf",
    "=",
    "08",
    "Bag",
]


def listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


@pytest.mark.parametrize("how", ["flow", "block", "quoted", "--set"])
def test_every_class_can_be_named_as_it_is_called(tmp_path: Path, how: str) -> None:
    path = tmp_path / "params.yaml"
    lines = {
        "flow": f" {listed(NAMES)}",
        "block": "".join(f"\n    - {name}" for name in NAMES),
        "quoted": f" {listed([repr(name) for name in NAMES])}",
        "--set": " [Shirt]",
    }
    path.write_text(f"seed: 07\nforget:\n  classes:{lines[how]}\n")
    loaded = config.load(path, [f"forget.classes={listed(NAMES)}"] if how == "--set" else ())
    assert loaded.forget.classes == tuple(NAMES)
    assert loaded.seed == 7, "what is no text is what YAML takes it for"
    assert config.load(written(tmp_path, yaml.safe_dump(loaded.to_json()))) == loaded, "what is printed reads the same"


def written(folder: Path, text: str) -> Path:
    path = folder / "again.yaml"
    path.write_text(text)
    return path


def test_the_split_that_dvc_makes_reads_them_alike(tmp_path: Path) -> None:
    names = [name for name in NAMES if name != "="]
    images = np.zeros((len(names), 8, 8, 1), dtype=np.uint8), np.arange(len(names))
    save(tmp_path / "data" / "07", name="07", classes=names, train=images, test=images)
    for number, name in enumerate(names):
        (tmp_path / "params.yaml").write_text(
            f"data: {{name: 07, per_class: 0x10}}\nforget: {{classes: [{name}]}}\nseed: 010\n"
        )
        assert splits.read_params(tmp_path) == ("07", splits.ForgetParams(classes=(name,)), 8)
        assert splits.read_limit(tmp_path) == 16
        assert config.load(tmp_path / "params.yaml").forget == splits.read_params(tmp_path)[1]
        assert make_split(load(tmp_path / "data" / "07"), splits.read_params(tmp_path)[1], 0).classes == (number,)


def test_a_benchmark_reads_them_alike(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "base: {data: {name: 2024}, train: {compile: off, epochs: 2}, labeling: {kind: ollama, model: 3}}\n"
        "methods: [finetune, {name: no, method: megu, set: {perturbing.sharpness: 2}}]\n"
        "targets: [{classes: [07]}, {scenario: random, count: 5}]\nseeds: [0]\nsweep: {noise.steps: [0x2, 3]}\n"
    )
    loaded = bench.load(path, ["forget.classes=[null, no]", "title=07", "seeds=[01]"])
    assert (loaded.title, loaded.seeds, loaded.sweep["noise.steps"]) == ("07", (1,), (2, 3))
    cells = expand(loaded)
    assert {cell.config.forget.classes for cell in cells} == {("07",), ("null", "no")}
    assert {cell.variant.label for cell in cells} == {"finetune", "no"}
    first = cells[0].config
    assert (first.data.name, first.train.compile, first.train.epochs, first.labeling.params.model) == ("2024", "off", 2, "3")
    assert cells[-1].config.perturbing.sharpness == 2


def test_what_a_flow_is_called_with_reads_them_alike(project: Project) -> None:
    project.params.write_text("seed: 0\nforget:\nreference: {enabled: no}\noriginal: {weights: ~}\n")
    settings = [f"forget.classes={listed(NAMES)}", "data.per_class=null", "forget.files=[07]"]
    path, left = redaction.redact_settings(project, project.params, settings)
    assert left == []
    assert config.load(path) == config.load(project.params, settings)
    assert config.load(path).forget.classes == tuple(NAMES)


def test_one_section_alone_reads_them_alike(tmp_path: Path) -> None:
    path = written(tmp_path, "registry: {name: 07, alias: no, enabled: no}\n")
    assert section(path, "registry", RegistryParams) == RegistryParams(name="07", alias="no", enabled=False)
    assert section(written(tmp_path, "registry:\n"), "registry", RegistryParams) == RegistryParams()


@dataclass
class Fields:
    text: str = ""
    choice: Literal["on", "off"] = "on"
    optional: str | None = None
    number: int | None = None
    mixed: Literal["auto"] | float = "auto"
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("field", "said", "found"),
    [
        ("text", "null", "null"),
        ("choice", "on", "on"),
        ("optional", "null", None),
        ("optional", "'null'", "null"),
        ("optional", "07", "07"),
        ("number", "~", None),
        ("number", "07", 7),
        ("mixed", "0.5", 0.5),
        ("mixed", "auto", "auto"),
        ("names", "[a: b]", [{"a": "b"}]),
        ("names", "07", "07"),
        ("names", "", None),
        ("numbers", "[07, 1]", [7, 1]),
        ("unknown", "no", False),
        ("unknown", "2024-01-01", "2024-01-01"),
    ],
)
def test_the_type_of_the_field_decides(field: str, said: str, found: Any) -> None:
    assert scalars.resolve(scalars.parse(f"{field}: {said}"), Fields) == {field: found}
    assert not isinstance(scalars.resolve(scalars.parse(f"{field}: {said}"), Fields)[field], scalars.Written)


@given(st.lists(st.from_regex(r"[A-Za-z0-9_.+-]([A-Za-z0-9_.:+-]{0,10}[A-Za-z0-9_.+-])?", fullmatch=True)))
def test_any_word_comes_out_as_it_went_in(names: list[str]) -> None:
    words = [name for name in names if name not in ("-", "---", "...")]
    assert scalars.resolve(scalars.parse(listed(words)), tuple[str, ...]) == words


@given(
    st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text())
)
def test_what_yaml_writes_is_read_as_yaml_reads_it(values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values)
    assert scalars.resolve(scalars.parse(text), Any) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("forget.classes=07", "--set forget.classes=07: forget.classes = '07'"),
        ("forget.classes=[a: b]", "--set forget.classes=[a: b]: forget.classes.0 = {'a': 'b'} is not text: write it in quotes"),
        ("forget.classes=[@home]", "--set 'forget.classes=[@home]': the value is not YAML"),
        ("forget.scenario=no", "--set forget.scenario=no: forget.scenario"),
        ("forget.count=0", "--set forget.count=0: forget.count = 0"),
        ("forget.clases=[a]", "--set forget.clases=[a]: unknown key forget.clases"),
        ("seed=-1", "--set seed=-1: seed = -1"),
        ("noise={steps: 0}", "--set noise={steps: 0}: noise.steps = 0"),
        ("train.lr=1", "params.yaml: forget.count = -3"),
    ],
)
def test_an_error_says_where_the_value_came_from(tmp_path: Path, override: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("forget: {count: -3}\n" if override == "train.lr=1" else "seed: 0\n")
    with pytest.raises(MeguError) as raised:
        config.load(path, ["seed=1", override])
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("forget", "data", "pinned"),
    [
        ("{classes: [Bag]}", "toy", True),
        ("{classes: ['07', 'no']}", "'2024'", True),
        ("{classes: [07]}", "toy", False),
        ("{classes: [no]}", "toy", False),
        ("{classes: [2024-01-01]}", "toy", False),
        ("{classes: [Bag]}", "007", False),
        ("{count: 1_000}", "toy", True),
    ],
)
def test_a_split_goes_through_dvc_only_if_dvc_reads_the_same(project: Project, forget: str, data: str, pinned: bool) -> None:
    from tasks.run.inputs import through_dvc

    (project.root / "dvc.yaml").write_text("stages: {}\n")
    project.params.write_text(f"seed: 0\ndata: {{name: {data}}}\nforget: {forget}\n")
    assert through_dvc(project, config.load(project.params)) is pinned


def test_what_dvc_writes_without_quotes_is_what_was_written() -> None:
    """DVC's own YAML is of version 1.2, in which ``no`` is a text: it writes it without quotes into dvc.lock."""
    mine = scalars.parse("forget: {classes: ['no', '07'], count: 1_000}")
    assert scalars.alike(mine, scalars.parse("forget: {classes: [no, '07'], count: 1000}"))
    assert not scalars.alike(mine, scalars.parse("forget: {classes: [no, 7], count: 1000}"))
