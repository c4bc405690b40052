"""What the README says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from megu.config import Config
from megu.methods import METHODS
from megu.tracking import flat

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_configuration_table_has_every_key_with_its_default() -> None:
    table = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", README, flags=re.MULTILINE))
    defaults = {
        key: json.dumps(value) if not isinstance(value, str) else value for key, value in flat(Config().to_json()).items()
    }
    assert table == defaults


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
    assert (Path(__file__).resolve().parents[1] / path).exists()
