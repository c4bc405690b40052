"""Reading answers: what a usable one is, and the soft score in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Fewer characters a token than any tokenizer makes of English: a prompt that counts fewer tokens was cut.
_CHARACTERS_A_TOKEN = 12


class Unusable(Exception):
    """An answer that says nothing; the reason is one of ours, never the model's words."""


@dataclass(frozen=True)
class Reply:
    """What came back, as much of it as is looked at. logprobs: by position, (token, logprob) of the likeliest tokens."""

    content: str
    thinking: bool
    done_reason: str
    logprobs: Sequence[Sequence[tuple[str, float]]]
    prompt_tokens: int | None
    tokens: int


def checked(reply: Reply, prompt_characters: int) -> Any:
    """The JSON value in a reply. Raises `Unusable`."""
    if reply.done_reason == "length":
        raise Unusable("cut before its end")
    if not reply.content.strip():
        raise Unusable("empty, the answer went into its thinking" if reply.thinking else "empty")
    if reply.prompt_tokens is not None and reply.prompt_tokens < prompt_characters / _CHARACTERS_A_TOKEN:
        raise Unusable("the prompt was cut, labeling.num_ctx is too small")
    try:
        return json.loads(reply.content)
    except ValueError:
        raise Unusable("not JSON") from None


def read_ranked(value: Any, allowed: Mapping[str, int], own: str) -> list[int]:
    """The concepts named, in order, each once. Raises `Unusable`."""
    labels = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise Unusable("no list of labels")
    if own in labels:
        raise Unusable("the true class")
    if any(label not in allowed for label in labels):
        raise Unusable("a label outside the choices")
    return list(dict.fromkeys(allowed[label] for label in labels))


def read_pair(value: Any, logprobs: Sequence[Sequence[tuple[str, float]]]) -> tuple[float, str]:
    """q in [0, 1], and whether it is "soft" (from the log-probabilities) or "hard" (0 or 1, the model gave none). Raises `Unusable`."""
    if value not in ("True", "False"):
        raise Unusable("neither True nor False")
    score = soft_score(logprobs)
    return (score, "soft") if score is not None else (float(value == "True"), "hard")


def soft_score(logprobs: Iterable[Sequence[tuple[str, float]]]) -> float | None:
    """p(True) / (p(True) + p(False)), at the first position where either is among the likeliest tokens; None where they never are.

    The scores are those before the schema's grammar, so the model's own wish shows even where the grammar forced a quote.
    Writings of one word (``True``, `` true``, ``"True``) are summed.
    """
    for position in logprobs:
        mass = {"true": 0.0, "false": 0.0}
        for token, logprob in position:
            word = token.strip(" \t\r\n\"'`*.▁Ġ").lower()
            if word in mass and math.isfinite(logprob):
                mass[word] += math.exp(min(logprob, 0.0))
        total = mass["true"] + mass["false"]
        if total > 0:
            return mass["true"] / total
    return None
