"""What the README says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scripts import printed

from megu.config.tree import Config, parse
from megu.labeling.ollama import strategies
from megu.tracking import flat
from megu.unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def table(head: str) -> dict[str, str]:
    """Key and default of the table under a heading row."""
    rows = README.partition(head)[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", rows, flags=re.MULTILINE))


def defaults(values: dict[str, object]) -> dict[str, str]:
    return {key: json.dumps(value) if not isinstance(value, str) else value for key, value in values.items()}


def test_the_configuration_table_has_every_key_with_its_default() -> None:
    assert table("| key | default | meaning |") == defaults(flat(Config().to_json()))


def test_so_has_the_table_of_the_ollama_labeler() -> None:
    own = parse({"labeling": {"kind": "ollama"}}).to_json()["labeling"]
    assert table("| key | default of ollama | meaning |") == defaults(
        {f"labeling.{key}": value for key, value in own.items() if key != "kind"}
    )


def test_the_numbers_of_questions_are_what_the_code_counts() -> None:
    asked = {name: strategies.calls(name, 100, 10, 10, 20) for name in ("pairwise", "ranked", "screened")}
    for number in asked.values():
        assert f"{number:,}" in README
    assert asked["screened"] == 11_000


def test_it_says_what_has_met_a_real_vision_model_and_the_four_commands() -> None:
    assert "how well gemma3:4b or any other model judges your classes has not been measured" in README.replace("\n", " ")
    for command in ("ollama serve", "ollama pull gemma3:4b", "megu doctor", "megu run --set labeling.kind=ollama"):
        assert f"$ {command}\n" in README


def test_the_page_about_labeling_is_written_from_the_functions() -> None:
    made = "\n".join(printed("labeling_numbers.py"))
    assert made.strip() in (ROOT / "docs" / "labeling.md").read_text()


def test_the_table_of_methods_has_each_with_what_it_needs() -> None:
    words = {"perturbing": "labeler", "noise": "noise", "retain": "retain set", "train_recipe": "recipe"}
    table = dict(re.findall(r"^\| `(\w+)` \| [^`|]+ \| (.*?) ?\|$", README, flags=re.MULTILINE))
    assert table == {
        name: ", ".join(words[need] for need in sorted(method.needs, key=list(words).index)) for name, method in METHODS.items()
    }


def test_the_first_forty_lines_say_what_it_is() -> None:
    start = "\n".join(README.splitlines()[:40])
    for needed in ("make run", "make test", "docs/report.png", "arXiv 2602.17088"):
        assert needed in start


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_it_links_to_exists(path: str) -> None:
    assert (ROOT / path).exists()
