"""The reference pages are as the code is, and have all of it."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import megu
from megu.config.tree import Config, parse
from megu.evaluation.guide import METRICS
from megu.tracking import flat
from megu.unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    sys.path.append(str(ROOT / "docs"))
    return importlib.import_module("reference")


def rows(page: str, cells: int) -> list[list[str]]:
    """The cells of every row of the page's tables with so many columns."""
    lines = re.findall(r"^\| (.*) \|$", (FOLDER / f"{page}.md").read_text(), flags=re.MULTILINE)
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in found if len(row) == cells and not row[0].startswith("---")]


def test_every_page_is_as_the_code_has_it(reference: ModuleType) -> None:
    for path, text in reference.pages().items():
        assert path.read_text() == text, f"{path.name} is out of date: python docs/reference.py"
    assert {path.stem for path in FOLDER.glob("*.md")} == set(reference.PAGES)


def test_the_configuration_has_every_key_with_its_default(reference: ModuleType) -> None:
    found = {key.strip("`"): default.strip("`") for key, default, _ in rows("configuration", 3) if key.startswith("`")}
    ollama = parse({"labeling": {"kind": "ollama"}}).to_json()["labeling"]
    wanted = flat(parse({}).to_json()) | {f"labeling.{key}": value for key, value in ollama.items()}
    assert set(found) == set(wanted)
    assert all(meaning for _, _, meaning in rows("configuration", 3))
    for key, value in wanted.items():
        assert found[key] == (value if isinstance(value, str) else reference.explained.Key("", value, "").shown)
    assert set(reference.MORE) <= set(wanted)
    assert set(parse({}).to_json()) == set(Config.model_fields)


def test_the_table_of_methods_has_each_with_what_it_needs(reference: ModuleType) -> None:
    table = {re.sub(r".*`(\w+)`.*", r"\1", name): needs for name, _, needs in rows("methods", 3) if name.startswith("[")}
    assert table == {name: reference.needs(method) for name, method in METHODS.items()}
    assert table["megu"] == "labeler, noise, retain set"
    assert table["delete"] == ""


def test_every_command_metric_and_public_name_is_there(reference: ModuleType) -> None:
    import typer.main

    names = {name for name, _ in reference.leaves(typer.main.get_command(reference.app), "megu")}
    assert set(reference.SEE) <= names
    assert {"megu init", "megu run", "megu data add", "megu cache prune"} <= names
    assert set(re.findall("^## (.*)$", (FOLDER / "commands.md").read_text(), flags=re.MULTILINE)) == names
    assert {row[0].strip("`") for row in rows("metrics", 6)[1:]} == set(METRICS)
    named = re.findall(r"^## megu\.(\w+)$", (FOLDER / "api.md").read_text(), flags=re.MULTILINE)
    assert named == megu.__all__


def test_no_tag_is_taken_for_html(reference: ModuleType) -> None:
    assert reference.escaped("a <b> | `c <d> | e` ``f <g>``") == "a &lt;b> \\| `c <d> \\| e` ``f <g>``"
