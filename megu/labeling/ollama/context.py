"""How much of the model's context a question needs, and whether the server read the whole of it.

A server drops early messages that do not fit into ``num_ctx``, without a word, and answers what is left: without its examples a question
gets another answer. So the context is requested by a bound that holds for every tokenizer, and the number of prompt tokens that comes with
each answer is compared with what a whole question has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megu.errors import MeguError
from megu.labeling.ollama.questions import Asked, Questions
from megu.labeling.ollama.server import Model

#: Tokens that Ollama counts for an image of a model with a separate projector, whatever the model takes.
IMAGE_TOKENS = 768
#: What the Qwen family takes at least, and pixels a token of models whose count grows with the image.
_QWEN_TOKENS, _PIXELS_A_TOKEN = 1024, 28 * 28
#: Tokens that a chat template puts around one message, at most; and what a context is rounded up to.
_TEMPLATE_TOKENS, _STEP = 32, 256
#: Fewer characters a token than any tokenizer makes of English.
_CHARACTERS_A_TOKEN = 12

Message = Mapping[str, Any]


def image_tokens(model: Model, size: tuple[int, int]) -> int:
    """Return how many tokens an image takes, at most. size: its width and height in pixels."""
    least = _QWEN_TOKENS if model.family.startswith("qwen") else IMAGE_TOKENS
    return max(least, model.image_tokens, -(-size[0] * size[1] // _PIXELS_A_TOKEN))


def needed(messages: Sequence[Message], answer_tokens: int, tokens_an_image: int) -> int:
    """Return the tokens that a question takes with its answer, at most: no tokenizer makes more than one token of a byte."""
    words = sum(len(message["content"].encode()) + _TEMPLATE_TOKENS for message in messages)
    images = sum(len(message.get("images", ())) for message in messages)
    return words + images * tokens_an_image + answer_tokens


def num_ctx(questions: Questions, model: Model) -> int:
    """Return the context to request for every question about a data set: ``labeling.num_ctx``, or more where the longest needs it.

    Raises `MeguError` with the number when that is more than the model can read.
    """
    tokens_an_image, most = image_tokens(model, questions.exemplars[0].size), model.context_length
    longest = max(
        needed(questions.parts(asked), questions.options(asked, second=True)["num_predict"], tokens_an_image)
        for asked in questions.longest()
    )
    if most and longest > most:
        raise MeguError(
            f"a question about these {len(questions.names):,} classes takes up to {longest:,} tokens, and {model.name} reads {most:,}",
            "shorten labeling.descriptions or labeling.image_size, or choose a model with a longer context",
        )
    rounded = -(-longest // _STEP) * _STEP
    return max(questions.judging.num_ctx, min(rounded, most) if most else rounded)


def fewest_tokens(messages: Sequence[Message]) -> int:
    """Return the fewest tokens that the words of a question can be."""
    return sum(len(message["content"]) for message in messages) // _CHARACTERS_A_TOKEN


@dataclass
class Whole:
    """Knows how many prompt tokens a whole True-or-False question has, from shorter ones that fit for sure.

    count: sends messages and returns how many tokens the server read of them, None where it does not say.

    A question without its examples and one with a single example differ by what one example takes, so by how much a cut question falls
    short. The count is exact for the concept that was measured; a name longer by a few bytes adds no more than these.
    """

    questions: Questions
    count: Callable[[Sequence[Message]], int | None]
    _measured: list[tuple[int, int, int]] = field(default_factory=list)

    def measure(self, asked: Sequence[Asked]) -> None:
        """Measure for these questions what is not covered yet. Raises `MeguError` for a server that drops even one example."""
        concepts = {entry.concept: entry for entry in asked if entry.concept is not None}
        for entry in sorted(concepts.values(), key=self._size):
            if not self._nearest(entry) and not self._measure(entry):
                return

    def least(self, asked: Asked) -> int:
        """Return the fewest prompt tokens that the whole question can have."""
        found = self._nearest(asked) if asked.concept is not None else None
        words = fewest_tokens(self.questions.parts(asked))
        return max(words, found[1] - found[2] // 2) if found else words

    def _measure(self, asked: Asked) -> bool:
        system, example, answer, *_, last = self.questions.messages(asked)
        without, one = self.count([system, last]), self.count([system, example, answer, last])
        if without is None or one is None:
            return False
        takes = one - without
        if takes <= fewest_tokens([example]):
            raise MeguError(
                f"the server drops the examples of a question (it read {one:,} tokens with one, {without:,} with none)",
                "raise OLLAMA_CONTEXT_LENGTH where the server runs, or choose a model with a longer context",
            )
        self._measured.append((self._size(asked), without + 2 * takes, takes))
        return True

    def _nearest(self, asked: Asked) -> tuple[int, int, int] | None:
        """The measurement of a concept whose name is shorter by so little that a missing example still shows."""
        size = self._size(asked)
        return next((entry for entry in reversed(self._measured) if 0 <= size - entry[0] < max(entry[2] // 4, 1)), None)

    def _size(self, asked: Asked) -> int:
        return len(self.questions.parts(asked)[-1]["content"].encode())
