"""No question is asked cut: the context that is requested holds the longest one, whatever the tokenizer, and a cut one is found out."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ollama_server import VISION, FakeOllama, Reply, blind, brightness
from test_labeling_ollama import DIGEST, JUDGING, K, Labels, N, labeler, question, refused, server

from megu.core.errors import MeguError
from megu.labeling.ollama import context, strategies
from megu.labeling.ollama.params import Judging
from megu.labeling.ollama.prompts import load
from megu.labeling.ollama.questions import Prompt, Questions
from megu.labeling.ollama.server import Model
from megu.labeling.ollama.strategies import GROUP
from megu.labeling.protocol import Question

__all__ = ["labeler", "server"]


def about(names: tuple[str, ...], exemplars: int = 1) -> Question:
    """Black images of as many classes as there are names."""
    classes = len(names)
    return Question(
        concepts=names,
        references=np.zeros((classes, 2, 2, 2, 1), dtype=np.uint8),
        exemplars=np.zeros((classes * exemplars, 2, 2, 1), dtype=np.uint8),
        exemplar_class=np.repeat(np.arange(classes), exemplars),
        exemplar_ids=np.array([f"{number:032x}" for number in range(classes * exemplars)], dtype="S32"),
    )


def body(questions: Questions, asked: Prompt, size: int) -> dict[str, Any]:
    """The question as it goes over the wire; an image is its number of bytes only."""
    messages = [
        {**message, "images": [base64.b64encode(b"png").decode() for _ in message["images"]]}
        if "images" in message
        else message
        for message in questions.parts(asked)
    ]
    return {"messages": messages, "options": {**questions.options(asked), "num_ctx": size}, "format": questions.schema(asked)}


NAME = st.text(st.characters(codec="utf-8", categories=["L", "N", "Zs", "P"]), min_size=1, max_size=60)


@settings(max_examples=40)
@given(
    st.lists(NAME, min_size=2, max_size=8, unique=True),
    st.sampled_from([2, 8, 100, 101, 350, 2000]),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from([1024, 8192]),
    st.data(),
)
def test_the_rule_that_drops_early_messages_never_cuts_a_question(
    names: list[str], classes: int, exemplars: int, bytes_a_token: int, size: int, data: st.DataObject
) -> None:
    every = tuple(dict.fromkeys([*names, *(f"class {number}" for number in range(classes))]))[:classes]
    questions = Questions(about(every, exemplars), Judging(exemplars=exemplars, num_ctx=size), load(), DIGEST)
    fake = FakeOllama(every, blind(classes), bytes_a_token=bytes_a_token, image_tokens=768)
    requested = context.num_ctx(questions, Model("m", DIGEST))
    assert requested >= size
    exemplar = data.draw(st.integers(0, classes * exemplars - 1))
    concept = data.draw(st.integers(0, classes - 1))
    for asked in [
        questions.pair(exemplar, concept),
        *questions.ranked(exemplar),
        questions.repeated(questions.pair(exemplar, concept)),
    ]:
        sent = body(questions, asked, requested)
        before = len(sent["messages"])
        assert fake._over_context(sent) is None
        assert len(sent["messages"]) == before, "an example was dropped"
        assert len(asked.choices) <= GROUP


@given(st.integers(1, 8), st.text(max_size=80), st.integers(1, 4), st.integers(1, 768), st.integers(0, 200))
def test_as_much_context_as_is_needed_holds_any_number_of_images(
    images: int, words: str, bytes_a_token: int, image_tokens: int, answer: int
) -> None:
    image = base64.b64encode(b"png").decode()
    examples = [{"role": "user", "content": words, "images": [image]}, {"role": "assistant", "content": '"True"'}]
    messages = [{"role": "system", "content": words}, *examples * (images - 1), examples[0]]
    size = context.needed(messages, answer, context.IMAGE_TOKENS)
    fake = FakeOllama(("a", "b"), blind(2), bytes_a_token=bytes_a_token, image_tokens=image_tokens, cuts_words=True)
    sent: dict[str, Any] = {"messages": messages, "options": {"num_ctx": size}}
    assert fake._over_context(sent) is None
    assert sent["messages"] == messages
    assert sent["read"] + answer <= size


@settings(max_examples=30)
@given(st.lists(NAME, min_size=4, max_size=9, unique=True), st.lists(st.integers(0, 90), min_size=9, max_size=9), st.data())
def test_no_question_needs_more_than_the_longest(names: list[str], described: list[int], data: st.DataObject) -> None:
    """With descriptions too, which are said once where a name is said twice."""
    descriptions = {name: "x" * length for name, length in zip(names, described, strict=False) if length}
    with pytest.MonkeyPatch.context() as patch:
        for module in ("questions", "strategies"):
            patch.setattr(f"megu.labeling.ollama.{module}.GROUP", 3)
        questions = Questions(about(tuple(names)), Judging(exemplars=1, descriptions=descriptions), load(), DIGEST)
        longest = max(context.needed(questions.parts(asked), 0, 768) for asked in questions.longest() if asked.concept is None)
        among = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=3))
        for asked in [*questions.ranked(0), *questions.ranked(len(names) - 1), *questions.ranked(1, among)]:
            assert context.needed(questions.parts(asked), 0, 768) <= longest


def test_a_question_that_the_model_cannot_hold_is_refused_with_the_number() -> None:
    questions = Questions(about(("a", "b")), Judging(descriptions={"a": "x" * 5000}), load(), DIGEST)
    with pytest.raises(MeguError, match=r"takes up to [78],\d{3} tokens, and m reads 4,096: shorten labeling.descriptions"):
        context.num_ctx(questions, Model("m", DIGEST, context_length=4096))


@pytest.mark.parametrize(
    ("model", "pixels", "tokens"),
    [(Model("m", ""), 224, 768), (Model("m", "", image_tokens=256), 224, 768), (Model("m", "", image_tokens=2880), 224, 2880),
     (Model("m", "", family="qwen25vl"), 224, 1024), (Model("m", ""), 2048, 5350)],
)  # fmt: skip
def test_what_an_image_is_taken_for(model: Model, pixels: int, tokens: int) -> None:
    assert context.image_tokens(model, (pixels, pixels)) == tokens


def test_the_context_is_raised_for_a_long_question_and_the_model_loaded_with_it(labeler: Labels, server: FakeOllama) -> None:
    judged = labeler(replace(JUDGING, num_ctx=1024, strategy="pairwise")).judge(question())
    sizes = {chat["options"]["num_ctx"] for chat in [*server.chats, *server.counts, *server.loads]}
    assert len(sizes) == 1
    assert sizes.pop() >= 3 * 768
    S = strategies.class_means(judged.q, N)
    assert (S.argmax(axis=1) == np.arange(K)).all(), "with a cut context every answer would have turned"


def test_a_server_that_reads_less_than_was_requested_is_found_out(labeler: Labels, server: FakeOllama) -> None:
    """As with OLLAMA_CONTEXT_LENGTH, or a model that was trained on less: an error with its numbers, and no answer."""
    server.context = 1600  # both examples are dropped, or one of them
    said = refused(labeler(replace(JUDGING, strategy="pairwise")))
    assert "the server drops the examples of a question" in said or "a question was cut: the server read" in said
    assert "OLLAMA_CONTEXT_LENGTH" in said
    assert server.count <= 2


@pytest.mark.parametrize("size", [1536, 1800, 2048, 2300])
def test_no_answer_to_a_cut_question_is_kept(labeler: Labels, server: FakeOllama, size: int) -> None:
    server.context = size
    asked = labeler(replace(JUDGING, strategy="pairwise"), concurrency=1)
    said = refused(asked)
    assert "OLLAMA_CONTEXT_LENGTH" in said
    assert asked.folder.joinpath(f"{DIGEST[:24]}.jsonl").read_text() == ""


def test_a_question_cut_in_the_middle_of_a_labeling_keeps_what_came_before(labeler: Labels, server: FakeOllama) -> None:
    def shrink(number: int, body: Mapping[str, Any]) -> Reply | None:
        server.context = 131072 if number < 9 else 2048
        return None

    server.fault = shrink
    said = refused(labeler(replace(JUDGING, strategy="pairwise"), concurrency=1))
    assert "a question was cut: the server read" in said
    assert "answers are kept" in said


@pytest.mark.parametrize("size", [150, 200, 300])
def test_a_ranked_question_whose_words_were_cut_is_no_answer(labeler: Labels, server: FakeOllama, size: int) -> None:
    """As recorded of a text model: half of the context is read, in silence, and the answer is to something else."""
    server.cuts_words, server.context = True, size
    asked = labeler(replace(JUDGING, strategy="ranked"), concurrency=1)
    assert "a question was cut: the server read" in refused(asked)
    assert asked.folder.joinpath(f"{DIGEST[:24]}.jsonl").read_text() == ""


def test_a_described_class_among_many_is_no_measure_of_the_others(
    monkeypatch: pytest.MonkeyPatch, labeler: Labels, server: FakeOllama
) -> None:
    """Among many classes a question lists its own alone, so a long description makes one question longer and not the others."""
    for module in ("questions", "strategies", "context"):
        monkeypatch.setattr(f"megu.labeling.ollama.{module}.GROUP", 3)
    judging = replace(JUDGING, strategy="pairwise", descriptions={"shade_0": "a shade of grey " * 120})
    judged = labeler(judging).judge(question())
    assert (strategies.class_means(judged.q, N).argmax(axis=1) == np.arange(K)).all()


def tokens(messages: list[dict[str, Any]], image: int) -> int:
    """As many as a tokenizer makes that knows some words and spells out the others, each word always alike."""
    count = 0
    for message in messages:
        count += 5 + image * len(message.get("images", ()))
        for word in re.findall(r"\w+|\W", message["content"]):
            length = len(word.encode())
            count += length if sum(word.encode()) % 2 else -(-length // 8)
    return count


@settings(max_examples=60)
@example(["b", "y" * 59], 16, 500, False)  # the second name is spelled out, and takes more than the image
@given(st.lists(NAME, min_size=2, max_size=6, unique=True), st.integers(1, 1024), st.integers(100, 4000), st.booleans())
def test_a_whole_question_is_taken_for_whole_and_a_cut_one_for_cut(names: list[str], image: int, size: int, many: bool) -> None:
    """Whatever the tokenizer makes of the names, the projector of an image, and however little context the server has."""

    def dropping(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        system, others = messages[:1], messages[1:]
        while len(others) > 1 and tokens([*system, *others], image) > size:
            others = others[1:]
        return [*system, *others]

    with pytest.MonkeyPatch.context() as patch:
        if many:
            for module in ("questions", "strategies", "context"):
                patch.setattr(f"megu.labeling.ollama.{module}.GROUP", 1)
        questions = Questions(about(tuple(names)), Judging(exemplars=1), load(), DIGEST)
        every = [questions.pair(exemplar, concept) for exemplar in range(2) for concept in range(len(names))]
        every += [asked for exemplar in range(len(names)) for asked in questions.ranked(exemplar)]
        whole = context.Whole(questions, lambda messages: tokens(messages, image))  # type: ignore[arg-type]
        whole.measure(every)
        for asked in every:
            assert whole.least(asked) <= tokens(questions.parts(asked), image)
        small = context.Whole(questions, lambda messages: tokens(dropping(messages), image))  # type: ignore[arg-type]
        try:
            small.measure(every)
        except MeguError:
            return
        for asked in every:
            parts = questions.parts(asked)
            if len(left := dropping(parts)) < len(parts):
                assert tokens(left, image) < small.least(asked)


def test_recorded_cut_answers_read_fewer_tokens_than_the_whole_question() -> None:
    """178 tokens whole, 152 with one example, 118 with none: half an example is between any two of them."""
    counts = {exchange["note"].partition(",")[0]: exchange["body"]["prompt_eval_count"] for exchange in VISION[:5]}
    whole = counts["pairwise question 0"]
    cut = [count for note, count in counts.items() if note.startswith("the same with num_ctx")]
    assert len(cut) == 2
    example = (whole - min(cut)) // 2
    assert all(count < whole - example // 2 for count in cut)


# --- many classes ----------------------------------------------------------------------------------------------------------------


def test_many_classes_are_ranked_in_groups_and_then_among_the_winners(monkeypatch: pytest.MonkeyPatch, labeler: Labels) -> None:
    for module in ("questions", "strategies"):
        monkeypatch.setattr(f"megu.labeling.ollama.{module}.GROUP", 5)
    classes = 12
    names = [f"shade {k}" for k in range(classes)]
    judging = replace(JUDGING, strategy="ranked", depth=2, min_repeat=0, max_position=1, min_symmetry=-1, min_own=0)
    with FakeOllama(names, brightness(classes)).serving() as fake:
        asked = labeler(judging, host=fake.host)
        judged = asked.judge(question(classes))
        enums = [
            chat["format"]["properties"]["labels"]["items"]["enum"] for chat in fake.chats if "properties" in chat["format"]
        ]
        systems = {chat["messages"][0]["content"].count("\n- ") for chat in fake.chats if "properties" in chat["format"]}
    assert max(len(enum) for enum in enums) <= 5
    assert max(systems) <= 5, "the classes that a question is about, where there are too many to list"
    assert asked.new <= strategies.calls("ranked", classes, N, 3, 4, depth=2)
    S = strategies.class_means(judged.q, N)
    np.fill_diagonal(S, -1)
    assert all(abs(int(S[k].argmax()) - k) == 1 for k in range(classes)), "the nearest shade wins over all groups"


@given(st.integers(1, 5000), st.integers(1, 20))
def test_ranking_takes_as_many_questions_as_it_says(choices: int, depth: int) -> None:
    if choices <= GROUP:
        assert strategies.rankings(choices, depth) == 1
    else:
        groups = -(-choices // GROUP)
        assert groups < strategies.rankings(choices, depth) <= groups * 2 + 1


def test_a_thousand_classes_cost_what_the_documentation_says() -> None:
    asked = {name: strategies.calls(name, 1000, 10, 10, 20) for name in ("ranked", "screened")}
    assert asked == {"ranked": 110_060, "screened": 210_000}, "ten groups of a hundred and their winners, for 10,000 exemplars"
