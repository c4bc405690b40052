"""No question is asked cut: the context that is requested holds the longest one, whatever the tokenizer, and a cut one is found out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_server import VISION, FakeOllama, Reply, blind, brightness
from test_labeling_ollama import DIGEST, JUDGING, K, Labels, N, labeler, question, refused, server

from megu.errors import MeguError
from megu.labeling.ollama import context, strategies
from megu.labeling.ollama.params import Judging
from megu.labeling.ollama.prompts import load
from megu.labeling.ollama.questions import Asked, Questions
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


def body(questions: Questions, asked: Asked, size: int) -> dict[str, Any]:
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
