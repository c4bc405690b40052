"""Labelers of other installed packages, with real entry points."""

from __future__ import annotations

import numpy as np
import pytest
from plugin_fixtures import Install

import megu
from megu.config import tree as configuration
from megu.core import plugins
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.labeling import kinds
from megu.labeling.prototype import PrototypeParams
from tasks.labeling import LABELING

LABELER = """
from dataclasses import dataclass

import numpy as np

from megu.labeling.protocol import Identity, Judgement, Kind
from judging.helper import LEAST


@dataclass(frozen=True, kw_only=True)
class Params:
    exemplars: int = 3
    references: int = 2
    seed: int = 0
    ceiling: float = 0.5


class Brightness:
    def __init__(self, params):
        self.ceiling = params.ceiling
        self.identity = Identity("brightness", "brightness, not an LLM", "1", "0" * 64)

    def judge(self, question):
        bright = question.references.reshape(len(question.concepts), -1).mean(axis=1)
        apart = abs(question.exemplars.reshape(len(question.exemplars), -1).mean(axis=1)[:, None] - bright)
        q = np.maximum(LEAST, self.ceiling * (1 - apart / 255))
        return Judgement(q, np.zeros(q.shape, dtype=bool))


KIND = Kind(Params, lambda params, device: Brightness(params))
"""


def example(install: Install, text: str = LABELER, name: str = "brightness") -> None:
    install("judging", {"labeler": text, "helper": "LEAST = 0.01"}, {name: "judging.labeler:KIND"}, group=kinds.GROUP)


def small() -> megu.Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 8, 8, 1), dtype=np.uint8), np.repeat(np.arange(3), 20)
    return megu.Dataset.of((images, labels), (images[:12], labels[:12]), ("a", "b", "c"))


def test_it_is_known_by_name_and_its_keys_are_checked(install: Install) -> None:
    assert kinds.names() == ["prototype", "ollama"]
    example(install)
    assert kinds.GROUP in plugins.GROUPS
    assert set(megu.labelers()) == {"prototype", "ollama", "brightness"}
    config = configuration.parse({"forget": {"classes": ["Bag"]}, "labeling": {"kind": "brightness", "ceiling": 0.25}})
    assert config.labeling.params == kinds.lookup("brightness").params(ceiling=0.25)
    with pytest.raises(MeguError, match="temperature"):
        configuration.parse({"forget": {"classes": ["Bag"]}, "labeling": {"kind": "brightness", "temperature": 0.1}})
    with pytest.raises(MeguError, match="did you mean brightness"):
        configuration.parse({"forget": {"classes": ["Bag"]}, "labeling": {"kind": "brightnes"}})


def test_it_judges_in_its_stage_and_its_code_is_in_the_key(
    install: Install, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.run.cached.dataset", lambda project, data: small())
    example(install)
    params = kinds.lookup("brightness").params()
    given = {"kind": "brightness", "params": params, "code": kinds.code("brightness"), "device": "cpu"}
    outcome = LABELING.compute(project, data=None, **given)
    assert outcome.values["labeler"]["name"] == "brightness"
    similar = project.store.arrays(outcome.files["labeling"])["S"]
    assert similar.shape == (3, 3)
    assert similar.max() <= 0.5
    assert {"judging.labeler", "judging.helper", "package judging"} <= set(kinds.code("brightness"))
    assert "megu.labeling.prototype" in kinds.code("prototype")


def test_the_api_takes_it_by_name(install: Install) -> None:
    from megu.api.unlearning import _similarity

    example(install)
    data = small()
    ask = _similarity("brightness", data)
    assert callable(ask)
    assert ask(data).shape == (3, 3)
    for name in ("ollama", "darkness"):
        with pytest.raises(MeguError, match=f"there is no labeler '{name}' here"):
            _similarity(name, data)


BROKEN = {
    "it is no labeler": (LABELER + "\nKIND = print\n", "not a megu.labeling.protocol.Kind"),
    "it makes nothing": (LABELER + "\nKIND = Kind(Params, None)\n", "its make cannot be called"),
    "its parameters are no dataclass": (LABELER + "\nKIND = Kind(dict, print)\n", "its params is not a dataclass"),
    "it does not say which images": (LABELER.replace("    seed: int = 0\n", ""), "its params lacks seed"),
    "a parameter has no default": (LABELER.replace("ceiling: float = 0.5", "ceiling: float"), "has no default"),
    "its import fails": ("import nothing_like_this\n", "nothing_like_this"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_that_is_not_usable_is_named_and_left_out(case: str, install: Install) -> None:
    text, said = BROKEN[case]
    example(install, text)
    with pytest.warns(UserWarning, match="'brightness' of judging") as caught:
        assert set(kinds.labelers()) == {"prototype", "ollama"}
    assert said in str(caught[0].message)
    with pytest.raises(MeguError, match="mend or remove judging"):
        kinds.lookup("brightness")


def test_it_cannot_take_the_place_of_one_of_ours(install: Install) -> None:
    example(install, name="prototype")
    assert kinds.lookup("prototype").params is PrototypeParams


def test_a_broken_one_does_not_hide_what_is_wrong_with_a_key(install: Install) -> None:
    example(install, "import nothing_like_this\n")
    with pytest.raises(MeguError, match=r"unknown key labeling\.concurrency: it is a key of labeling\.kind=ollama"):
        configuration.parse({"forget": {"classes": ["Bag"]}, "labeling": {"concurrency": 2}})
