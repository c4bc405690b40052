"""What the console says of the entanglement."""

from __future__ import annotations

from megu.core.stages import Result
from tasks.entanglement import say


def said(score: float | None, nearest: dict[str, list[str]]) -> str:
    return say(Result("entanglement", {}, {}, {"score": score, "nearest": nearest}, {}, 0.0, {}))


def test_a_class_that_no_other_is_near_to_is_not_named() -> None:
    assert said(2.345, {"cat": ["dog", "emu", "oak"], "fox": []}) == "score 2.35, cat is nearest to dog, emu"
    assert said(2.345, {"cat": [], "dog": []}) == "score 2.35"
    assert said(None, {"cat": ["dog"]}) == "cat is nearest to dog"
