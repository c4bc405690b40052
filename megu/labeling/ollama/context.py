"""How much of the model's context a question needs, and whether the server read all of it.

A server silently drops early messages that do not fit into ``num_ctx`` and answers the rest: without its examples a question gets a
different answer. So the requested context is a bound that holds for every tokenizer, and the number of prompt tokens reported with each
answer is compared with that of a whole question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megu.core.errors import MeguError
from megu.labeling.ollama.questions import Prompt, Questions
from megu.labeling.ollama.server import Model
from megu.labeling.ollama.strategies import GROUP

#: Tokens that Ollama counts for an image of a model with a separate projector, whatever the model uses.
IMAGE_TOKENS = 768
#: The fewest tokens per image of the Qwen family, and pixels per token of models whose count grows with the image.
_QWEN_TOKENS, _PIXELS_A_TOKEN = 1024, 28 * 28
#: Tokens that a chat template puts around one message, at most; and what a context is rounded up to.
_TEMPLATE_TOKENS, _STEP = 32, 256
#: The largest difference in tokens of the same names in another order.
_ORDER_TOKENS = 16
#: The largest difference in tokens of two answers: "True" and "False" have four and five letters between quotes.
_ANSWER_TOKENS = 8
#: More characters per token than any tokenizer averages on English.
_CHARACTERS_A_TOKEN = 12

Message = Mapping[str, Any]


def image_tokens(model: Model, size: tuple[int, int]) -> int:
    """Return the most tokens that an image can take. size: its width and height in pixels."""
    least = _QWEN_TOKENS if model.family.startswith("qwen") else IMAGE_TOKENS
    return max(least, model.image_tokens, -(-size[0] * size[1] // _PIXELS_A_TOKEN))


def needed(messages: Sequence[Message], answer_tokens: int, tokens_an_image: int) -> int:
    """Return the most tokens that a question and its answer can take: no tokenizer makes more than one token of a byte."""
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
    """Return the fewest tokens that the words of a question can take."""
    return sum(len(message["content"]) for message in messages) // _CHARACTERS_A_TOKEN


def _bytes(messages: Sequence[Message]) -> int:
    return sum(len(message["content"].encode()) for message in messages)


@dataclass(frozen=True)
class _Measured:
    """whole: prompt tokens of a whole question. slack: how many fewer another whole one may have. words: bytes of its words."""

    whole: int
    slack: int
    words: int


@dataclass
class Whole:
    """Infer how many prompt tokens a whole question has from its parts, which are sure to fit.

    count: sends messages and returns how many tokens the server read of them, None where it does not say.

    True or False: a question without examples and one with a single example differ by the tokens of one example; a whole question has two.
    A server that drops the example drops its image first, and keeps the answer to it.
    Ranked: the part before the choices and the choices are counted separately; even if a server truncates one of these, it counts more for
    both than for the whole.
    """

    questions: Questions
    count: Callable[[Sequence[Message]], int | None]
    _pairs: dict[int, _Measured] = field(default_factory=dict)
    _ranked: _Measured | None = None

    def measure(self, asked: Sequence[Prompt]) -> None:
        """Measure what these questions still need. Raises `MeguError` for a server that drops even one example."""
        pairs = {entry.concept: entry for entry in asked if entry.concept is not None and entry.concept not in self._pairs}
        shared: _Measured | None = None
        for concept, entry in sorted(pairs.items(), key=lambda item: self._own_bytes(item[1])):
            if shared is None or self._own_bytes(entry) > shared.slack // 2 - _ANSWER_TOKENS // 2:
                shared = self._measure_pair(entry)
            if shared is None:
                return
            self._pairs[concept] = shared
        if self._ranked is None and (ranked := next((entry for entry in asked if entry.concept is None), None)):
            self._ranked = self._measure_ranked(ranked)

    def least(self, asked: Prompt) -> int:
        """Return the fewest prompt tokens that the whole question can have."""
        parts = self.questions.parts(asked)
        least = fewest_tokens(parts)
        found = self._ranked if asked.concept is None else self._pairs.get(asked.concept)
        if found is None:
            return least
        if asked.concept is not None or len(self.questions.names) <= GROUP:
            return max(least, found.whole - found.slack)
        # The choices differ in every question: names of the same number of bytes may have half as many tokens, not fewer.
        return max(least, found.whole * min(_bytes(parts), found.words) // found.words // 2)

    def _measure_pair(self, asked: Prompt) -> _Measured | None:
        messages = self.questions.messages(asked)
        system, example, answer, *_, last = messages
        without, dropped = self.count([system, last]), self.count([system, answer, last])
        one = self.count([system, example, answer, last])
        if without is None or dropped is None or one is None:
            return None
        if one <= dropped:
            raise MeguError(
                f"the server drops the examples of a question (it read {one:,} tokens with one, {without:,} with none)",
                "raise OLLAMA_CONTEXT_LENGTH where the server runs, or choose a model with a longer context",
            )
        return _Measured(2 * one - without, (one - dropped) // 2, _bytes(messages))

    def _measure_ranked(self, asked: Prompt) -> _Measured | None:
        system, last = messages = self.questions.messages(asked)
        little = {"role": "system", "content": "?"}
        before = self.count([system, {**last, "content": "?"}])
        choices, neither = (self.count([little, {"role": "user", "content": words}]) for words in (last["content"], "?"))
        if before is None or choices is None or neither is None:
            return None
        # Another exemplar's question lacks a different name, and has the others in a different order.
        slack = max(len(name.encode()) for name in self.questions.names) + _ORDER_TOKENS
        return _Measured(before + choices - neither, slack, _bytes(messages))

    def _own_bytes(self, asked: Prompt) -> int:
        """Return the bytes of a True-or-False question that depend on the concept: no tokenizer makes more tokens of them."""
        name = len(self.questions.names[asked.concept or 0].encode())
        listed = len(self.questions.line(asked.concept or 0).encode()) if len(self.questions.names) > GROUP else 0
        return 3 * name + listed
