from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.core.files.store import Ref
from megu.core.params import Means
from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage, differences, nearest


@dataclass(frozen=True)
class Params:
    steps: int = 40
    lr: float = 0.1


def compute(
    project: Project, original: Result, params: Params, seed: int, device: Device, others: Sequence[Result] = ()
) -> Outcome:
    return Outcome()


STAGE = Stage("noise", "Make the noise", compute)
PROJECT = Project(Path("/nowhere"))
RESULT = Result(
    "original",
    {"seed": 0},
    {"weights": Ref("safetensors", "a" * 64, 3)},
    {"arch": "x"},
    {"train_seconds": 9.0},
    10.0,
    {"created": "then"},
)


def parts(**changes: Any) -> dict[str, Any]:
    arguments = {"original": RESULT, "params": Params(), "seed": 0, "device": Device("cpu"), **changes}
    return STAGE.parts(STAGE.bind(PROJECT, arguments))


def key(**changes: Any) -> str:
    return STAGE.key(parts(**changes))


def test_a_result_survives_json() -> None:
    assert Result.from_json(RESULT.to_json()) == RESULT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"params": Params(steps=41)}, "params.steps was 40, is 41"),
        ({"original": replace(RESULT, values={"arch": "y"})}, "input original changed"),
        ({"original": replace(RESULT, files={"weights": Ref("safetensors", "b" * 64, 3)})}, "input original changed"),
        ({"device": Device("cuda")}, "device class was cpu, is cuda"),
        ({"others": [RESULT]}, "others is gone"),
    ],
)
def test_what_matters_is_in_the_key_and_said(change: dict[str, Any], said: str) -> None:
    assert key(**change) != key()
    assert said in differences(parts(), parts(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"device": Device("cpu:0")},
        {"original": replace(RESULT, seconds=99.0, notes={"train_seconds": 1.0}, origin={"created": "now"})},
    ],
)
def test_what_does_not_matter_is_not_in_the_key(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def test_an_argument_that_the_stage_does_not_have_is_an_error_at_once() -> None:
    with pytest.raises(TypeError):
        STAGE.bind(PROJECT, {"orignal": RESULT})


def test_the_code_is_in_the_key() -> None:
    own = Stage("split", "", __import__("tasks.split", fromlist=["split"]).split)
    named = own.parts({"seed": 0})
    assert {"code tasks.split", "code megu.data.splits"} <= set(named)
    assert differences({**named, "code megu.data.splits": "before"}, named) == ["code megu.data.splits changed"]


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_differences_are_empty_exactly_for_equal_parts(before: dict[str, int], now: dict[str, int]) -> None:
    assert (differences(before, now) == []) == (before == now)


def test_the_nearest_kept_result_explains_a_miss() -> None:
    assert nearest({"a": 1, "b": 2}, [{"a": 0, "b": 0}, {"a": 1, "b": 3}]) == ["b was 3, is 2"]
    assert nearest({"a": 1}, []) is None


def test_how_something_is_reached_is_no_part_of_the_name() -> None:
    @dataclass(frozen=True)
    class Connection(Means):
        host: str

    def ask(project: Project, question: str, connection: Connection) -> Outcome:
        return Outcome()

    def name(host: str, question: str = "why") -> str:
        stage = Stage("ask", "Ask", ask)
        return stage.key(stage.parts(stage.bind(PROJECT, {"question": question, "connection": Connection(host)})))

    assert name("here") == name("there")
    assert name("here") != name("here", "how")
