"""Every key of the configuration is explained where it is defined, and nothing else is."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

import pytest

from megu.config import explained
from megu.config.tree import Config
from megu.labeling.kinds import KINDS
from megu.unlearning.methods import METHODS

SECTIONS = [
    *((name, "") for name in explained.sections() if name not in ("unlearn", "labeling")),
    *(("unlearn", name) for name in METHODS),
    *(("labeling", name) for name in KINDS),
]


@pytest.mark.parametrize(("section", "chosen"), SECTIONS)
def test_every_key_says_what_it_means(section: str, chosen: str) -> None:
    for key in explained.section(section, chosen):
        assert len(key.meaning) >= 5, f"{key.name}: explain it in the docstring of its class, as `key: meaning`"
        assert "`megu." not in key.meaning
        assert "\n" not in key.meaning


@pytest.mark.parametrize("kind", [Config, *filter(None, (explained.kind_of_section(*entry) for entry in SECTIONS))])
def test_no_line_explains_a_key_that_is_not_there(kind: type) -> None:
    for owner in kind.__mro__:
        text = inspect.cleandoc(owner.__dict__.get("__doc__") or "") if owner is not object else ""
        named = {name for names in re.findall(r"^([a-z_]+(?:, [a-z_]+)*): ", text, re.MULTILINE) for name in names.split(", ")}
        assert named <= set(explained.meanings(kind)), owner


@dataclass(frozen=True)
class Base:
    """What both have.

    size: pixels a side.
    """

    size: int = 8


@dataclass(frozen=True)
class Own(Base):
    """steps, rate: of the optimiser (`megu.training.loop`). size: of this one; side: not a key

    that is not a meaning. decay: nor is this, which is: text.
    """

    steps: int = 1
    rate: float = 0.5
    decay: str = "none"


def test_how_a_meaning_is_told_from_the_rest() -> None:
    assert explained.meanings(Own) == {
        "size": "of this one; side: not a key",
        "steps": "of the optimiser",
        "rate": "of the optimiser",
        "decay": "nor is this, which is: text",
    }
    assert (explained.about(Base), explained.about(Own)) == ("What both have.", "")


def test_a_section_inside_a_section_has_keys_of_its_own() -> None:
    keys = {key.name: key.default for key in explained.section("promotion")}
    assert keys["promotion.ladder.hours"] == 24.0
    assert "promotion.ladder" not in keys
