"""Parse answers: decide which are usable, and compute their soft scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megu.core.escaping import plain


class Unusable(Exception):
    """An answer that cannot be used; the reason is in our words, never the model's."""


class Cut(Exception):
    """An answer to only a part of the question: the server read fewer tokens than the whole question has."""


@dataclass(frozen=True)
class Reply:
    """The parts of a response that are used. logprobs: by position, (token, logprob) of the likeliest tokens."""

    content: str
    thinking: bool
    done_reason: str
    logprobs: Sequence[Sequence[tuple[str, float]]]
    prompt_tokens: int | None
    tokens: int


def checked(reply: Reply, least: int) -> Any:
    """Return the JSON value in a reply. least: the fewest prompt tokens that the whole question can have. Raises `Unusable`, and `Cut` when
    fewer were read."""
    if reply.prompt_tokens is not None and reply.prompt_tokens < least:
        raise Cut(f"the server read {reply.prompt_tokens:,} tokens of a question that has at least {least:,}")
    if reply.done_reason == "length":
        raise Unusable("cut before its end")
    if not reply.content.strip():
        raise Unusable("empty, the answer went into its thinking" if reply.thinking else "empty")
    try:
        return json.loads(reply.content)
    except ValueError:
        raise Unusable("not JSON") from None


def read_ranked(value: Any, allowed: Mapping[str, int], own: str) -> list[int]:
    """Return the named concepts in order, each once. Raises `Unusable`."""
    labels = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise Unusable("no list of labels")
    if own in labels:
        raise Unusable("the true class")
    if any(label not in allowed for label in labels):
        raise Unusable("a label outside the choices")
    return list(dict.fromkeys(allowed[label] for label in labels))


def read_reason(value: Any, most: int) -> str:
    """Return the reason in a ranked answer as one printable line of at most ``most`` characters; empty where there is none."""
    said = value.get("because") if isinstance(value, dict) else None
    return plain(said)[:most] if isinstance(said, str) else ""


#: The two answers to a True-or-False question, and characters in a token that belong to its tokenizer, not to the word.
_WORDS = ("true", "false")
_TOKENIZER_MARKS = "▁ĠĊ"
#: The precision of a probability near one: the server computes in 32 bits.
_ROUNDING = 2.0**-24


def read_pair(value: Any, logprobs: Sequence[Sequence[tuple[str, float]]]) -> tuple[float, str]:
    """Return q in [0, 1] and how it was scored: "soft" (from the log-probabilities), "hard" (0 or 1, because the server gave none) or
    "unlisted" (0 or 1, because neither word was among the likeliest tokens).

    Raises `Unusable` for a value that is neither "True" nor "False".
    """
    if value not in ("True", "False"):
        raise Unusable("neither True nor False")
    score = soft_score(logprobs)
    if score is not None:
        return score, "soft"
    return float(value == "True"), "unlisted" if any(logprobs) else "hard"


def soft_score(logprobs: Iterable[Sequence[tuple[str, float]]]) -> float | None:
    """Return p(True) / (p(True) + p(False)) at the position of the answer; None where no position lists either word.

    logprobs: by position, the likeliest tokens with their log-probabilities, as they are before the schema's grammar is enforced. The
    position of the answer is the one with the most mass on the two words: a quote or a space that the grammar forces comes before it, and
    its list can hold one of the words at a negligible probability. A word that is not listed there counts with the most that it can have:
    no more than the least likely listed token, nor than what the listed ones leave, up to the rounding of a log-probability.
    """
    found = max(((*_mass(position), position) for position in logprobs), key=lambda entry: entry[0] + entry[1], default=None)
    if found is None or found[0] + found[1] == 0:
        return None
    true, false, position = found
    listed = [_probability(logprob) for _, logprob in position]
    most = min(max(1 - sum(listed), _ROUNDING), *(listed if len(listed) > 1 else [1.0]))
    true, false = true or most, false or most
    return true / (true + false)


def begins(token: str) -> bool:
    """Return whether a token that the model wrote is True or False, or the beginning of one of them."""
    word = _bare(token)
    return bool(word) and any(answer.startswith(word) for answer in _WORDS)


def _mass(position: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """Return the probabilities of True and of False among the likeliest tokens of a position, summed over all spellings."""
    mass = dict.fromkeys(_WORDS, 0.0)
    for token, logprob in position:
        word = _bare(token)
        for answer in _WORDS:
            # A tokenizer without the word has its beginning: "Tr", "ue". One letter could begin anything.
            if len(word) > 1 and answer.startswith(word):
                mass[answer] += _probability(logprob)
    return mass["true"], mass["false"]


def _bare(token: str) -> str:
    """Return a token in lower case without the quotes, blanks and other marks around it, of any language or tokenizer."""
    letters = token.strip(_TOKENIZER_MARKS)
    start = next((at for at, sign in enumerate(letters) if sign.isalnum()), len(letters))
    end = next((at for at in range(len(letters), start, -1) if letters[at - 1].isalnum()), start)
    return letters[start:end].lower()


def _probability(logprob: float) -> float:
    return math.exp(min(logprob, 0.0)) if math.isfinite(logprob) else 0.0
