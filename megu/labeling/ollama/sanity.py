"""Measure whether the answers make sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.labeling.agreement import symmetry
from megu.labeling.ollama.answer_store import Answer
from megu.labeling.ollama.params import Judging

#: Measure -> (its limit's parameter, what it is, whether more is better).
MEANING = {
    "answered": ("min_answered", "share of questions with a usable answer", True),
    "own": ("min_own", "share of exemplars whose own class the model confirms", True),
    "symmetry": ("min_symmetry", "rank correlation of the matrix and its transpose", True),
    "repeat": ("min_repeat", "share of answers that stay the same when asked in another form", True),
    "position": ("max_position", "excess of answers that go by the place of a choice or an example", False),
}


def confirmed(own: Mapping[int, float | None], others: Mapping[int, Sequence[float]]) -> float | None:
    """Return the share of exemplars whose own class was answered True, and more surely than the mean of the other classes asked about.

    The second condition catches a model that says True to everything. Abstentions are left out; None when nothing is left.
    """
    told = {exemplar: value for exemplar, value in own.items() if value is not None}
    if not told:
        return None
    held = [
        value >= 0.5 and (not others.get(exemplar) or value > float(np.mean(others[exemplar])))
        for exemplar, value in told.items()
    ]
    return sum(held) / len(held)


def same(one: Answer, other: Answer) -> bool | None:
    """Return whether two answers to one question agree: the same side of one half, or the same first choice. None with an abstention."""
    if one.value is None or other.value is None:
        return None
    if isinstance(one.value, list) and isinstance(other.value, list):
        return one.value[0] == other.value[0]
    return (one.value >= 0.5) == (other.value >= 0.5)  # type: ignore[operator]


def repeated(pairs: Sequence[tuple[Answer, Answer]]) -> float | None:
    """Return the share of the repeated questions whose answer stayed the same."""
    held = [agree for one, other in pairs if (agree := same(one, other)) is not None]
    return float(np.mean(held)) if held else None


def place_bias(ranked: Sequence[tuple[Answer, int]]) -> float | None:
    """Return how much more often than by chance the first or the last of the listed choices was chosen; 0 when less often.

    ranked: answers, each with the number of its choices.
    """
    taken = [(answer.first, choices) for answer, choices in ranked if answer.first >= 0 and choices > 1]
    if not taken:
        return None
    chance = float(np.mean([1 / choices for _, choices in taken]))
    first, last = (
        np.mean([at == place(choices) for at, choices in taken]) for place in (lambda _: 0, lambda choices: choices - 1)
    )
    return max(float(first), float(last), chance) - chance


def order_bias(pairs: Sequence[tuple[Answer, Answer]]) -> float | None:
    """Return how far the mean score moves when the two examples swap places."""
    both = [(one.value, other.value) for one, other in pairs if isinstance(one.value, float) and isinstance(other.value, float)]
    return float(abs(np.mean([one - other for one, other in both]))) if both else None


def measure(
    every: Sequence[Answer],
    own: Mapping[int, float | None],
    others: Mapping[int, Sequence[float]],
    similarity: NDArray[np.float64],
    again: Sequence[tuple[Answer, Answer]],
    ranked: Sequence[tuple[Answer, int]],
) -> dict[str, float | None]:
    """Return all five measures; None where one cannot be taken (the symmetry of two classes). ranked: see `place_bias`."""
    biases = [place_bias(ranked), order_bias(again)]
    found = [bias for bias in biases if bias is not None]
    measured = {
        "answered": float(np.mean([answer.value is not None for answer in every])) if every else None,
        "own": confirmed(own, others),
        "symmetry": symmetry(similarity),
        "repeat": repeated(again),
        "position": max(found) if found else None,
    }
    return {name: None if value is None else round(value, 4) for name, value in measured.items()}


def demand(measured: Mapping[str, float | None], judging: Judging, reasons: Mapping[str, int]) -> list[str]:
    """Return the measures that miss their limit but are overridden. Raises `MeguError` with the numbers for any that are not."""
    missed = [name for name, value in measured.items() if value is not None and not _holds(name, value, judging)]
    failed = [name for name in missed if name not in judging.override]
    if failed:
        numbers = "; ".join(f"{name} {measured[name]:.2f} ({_limit(name, judging)})" for name in failed)
        why = (
            f" (abstained: {', '.join(f'{reason} {count}' for reason, count in reasons.items())})"
            if "answered" in failed and reasons
            else ""
        )
        raise MeguError(
            f"the answers of {judging.model} do not make sense: {numbers}{why}",
            f"try another model, or accept them with --set 'labeling.override=[{', '.join([*judging.override, *failed])}]'",
        )
    return missed


def _holds(name: str, value: float, judging: Judging) -> bool:
    limit: float = getattr(judging, MEANING[name][0])
    return value >= limit if MEANING[name][2] else value <= limit


def _limit(name: str, judging: Judging) -> str:
    parameter, meaning, more = MEANING[name]
    return f"{meaning}; {'at least' if more else 'at most'} {getattr(judging, parameter):g} is required"


def summary(measured: Mapping[str, Any]) -> str:
    """Summarise the measures in a few words."""
    words = {"own": "own class", "repeat": "repeat", "symmetry": "symmetry", "position": "position bias"}
    return ", ".join(f"{word} {measured[name]:.2f}" for name, word in words.items() if measured.get(name) is not None)
