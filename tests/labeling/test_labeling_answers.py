"""Reading answers: the soft score, and everything that is no answer. Keeping them: torn lines, answers taken back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama_server import RECORDED, VISION, recorded

from megu.core.errors import MeguError
from megu.labeling.ollama import sanity
from megu.labeling.ollama.answer_store import Answer, Answers, last_seen, remember
from megu.labeling.ollama.answers import Cut, Reply, Unusable, begins, checked, read_pair, read_ranked, soft_score
from megu.labeling.ollama.asking import _taken as taken
from megu.labeling.ollama.context import fewest_tokens
from megu.labeling.ollama.params import Judging


def reply(content: str = '"True"', **changes: object) -> Reply:
    values = {"content": content, "thinking": False, "done_reason": "stop", "logprobs": [], "prompt_tokens": 100, "tokens": 3}
    return Reply(**{**values, **changes})  # type: ignore[arg-type]


def test_the_soft_score_is_true_over_true_and_false() -> None:
    position = [("True", math.log(0.3)), ("False", math.log(0.1)), ("The", math.log(0.5))]
    assert soft_score([position]) == pytest.approx(0.75)


def test_writings_of_one_word_are_summed() -> None:
    position = [(" True", math.log(0.2)), ('"true', math.log(0.1)), ("False", math.log(0.3))]
    assert soft_score([position]) == pytest.approx(0.5)


def test_a_quote_that_the_grammar_forced_is_not_the_answer() -> None:
    quote = [('"', math.log(0.9)), ("False", math.log(0.001)), ("The", math.log(0.0005))]
    answer = [("True", math.log(0.6)), ("False", math.log(0.39)), ("T", math.log(0.0001))]
    assert soft_score([quote, answer, [('"', 0.0)]]) == pytest.approx(0.6 / 0.99, abs=0.001)
    assert soft_score([[('"', 0.0), ("The", -1.0)]]) is None
    assert soft_score([]) is None


def test_a_word_that_is_not_listed_has_at_most_what_the_list_leaves() -> None:
    assert soft_score([[("False", math.log(0.9))]]) == pytest.approx(0.1)
    sure = [("False", math.log(0.995)), *((f"word {number}", math.log(0.0001)) for number in range(19))]
    assert soft_score([sure]) == pytest.approx(0.0001 / 0.9951)
    unsure = [("The", math.log(0.9)), ("True", math.log(0.001)), ("A", math.log(0.001))]
    assert soft_score([unsure]) == pytest.approx(0.5), "a word seen at the end of the list says little against one below it"


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=20), st.sampled_from(["True", "False"]))
def test_no_score_is_exactly_zero_or_one_unless_the_mass_says_so(logits: list[float], word: str) -> None:
    """Not where the listed tokens' probabilities, rounded as the server rounds them, seem to leave nothing, or less."""
    scores = np.asarray(logits, dtype=np.float32)
    rounded = (scores - np.logaddexp.reduce(scores)).astype(np.float32)
    score = soft_score([[(word if not at else f"word {at}", float(value)) for at, value in enumerate(rounded)]])
    assert score is None or 0 < score < 1


SPELLINGS = [
    "True",
    " true",
    "TRUE",
    '"True',
    "\u201eTrue\u201c",
    "\u00abTrue\u00bb",
    "\u300cTrue",
    "`True`",
    "\u2581True",
    "\u0120True",
    "Tr",
    "**True",
]


@pytest.mark.parametrize("token", SPELLINGS)
def test_every_spelling_of_a_word_counts(token: str) -> None:
    position = [(token, math.log(0.6)), ("False", math.log(0.2)), ("x", math.log(0.1))]
    assert soft_score([position, [("ue", -0.01)]]) == pytest.approx(0.75)


TOKENS = st.sampled_from(["True", "False", " true", "Fal", '"', "The", "Yes", "", "\u201c"])


@st.composite
def ranked_tokens(draw: st.DrawFn, least: float, most: float) -> list[tuple[str, float]]:
    """The likeliest tokens of a position, of which those that spell a word have a mass within the bounds."""
    tokens = draw(st.lists(TOKENS, min_size=1, max_size=6, unique=True))
    mass = draw(st.floats(least, most)) / len(tokens)
    return [(token, math.log(mass)) for token in tokens]


@given(ranked_tokens(0.6, 0.95), st.lists(ranked_tokens(1e-9, 0.09), max_size=4), st.integers(0, 4))
def test_the_score_depends_on_the_answers_position_alone(
    answer: list[tuple[str, float]], others: list[list[tuple[str, float]]], place: int
) -> None:
    answer = [("True", math.log(0.02)), *answer]
    alone = soft_score([answer])
    assert alone is not None
    if sum(math.exp(logprob) for token, logprob in answer if token.strip().lower() in ("true", "false", "fal")) > 0.1:
        assert soft_score([*others[:place], answer, *others[place:]]) == alone


@pytest.mark.parametrize(
    ("token", "is_one"),
    [
        ("True", True),
        (" fal", True),
        ("T", True),
        ('"F', True),
        ('"', False),
        ("", False),
        ("ue", False),
        ("Yes", False),
        ("Truely", False),
    ],
)
def test_where_an_answer_begins(token: str, is_one: bool) -> None:
    assert begins(token) is is_one


WRITTEN = st.lists(st.sampled_from(['"', " ", "\u201c", "\n", "```"]), max_size=3)


@given(WRITTEN, st.sampled_from(["True", "False"]), st.sampled_from([1, 2, 5]), WRITTEN, st.floats(0.001, 0.999), st.data())
def test_what_stands_around_an_answer_says_nothing_of_its_score(
    before: list[str], word: str, size: int, after: list[str], true: float, data: st.DataObject
) -> None:
    """As the client hands it on: the word in pieces or whole, and around it tokens whose lists are sure of the other word."""
    pieces = [word[:size], word[size:]] if size < len(word) and size > 1 else [word]
    tokens = [*before, *pieces, *after]
    lists = []
    for at, token in enumerate(tokens):
        if at == len(before):
            cut = len(pieces[0])
            listed = {"The": 0.98, "True"[:cut]: 0.01 * true, "False"[:cut]: 0.01 * (1 - true)}
        else:
            listed = {data.draw(st.sampled_from(["True", "False"])): data.draw(st.floats(1e-9, 1)), "x": 1e-12}
        lists.append({"token": token, "logprob": -0.1, "top_logprobs": [
            {"token": name, "logprob": math.log(mass)} for name, mass in listed.items()
        ]})  # fmt: skip
    message = {"role": "assistant", "content": f'"{word}"'}
    answer = taken(ollama.ChatResponse.model_validate({"message": message, "logprobs": lists}))
    score, how = read_pair(word, answer.logprobs)
    assert (score, how) == (pytest.approx(true), "soft")


def test_recorded_answers_of_a_vision_model_are_read_at_the_answer() -> None:
    """The first position is the quote; by hand: True and False at the second."""
    read = []
    for exchange in VISION:
        if exchange["status"] == 200 and "logprobs" in exchange["body"]:
            positions = [
                [(told["token"], told["logprob"]) for told in at["top_logprobs"]] for at in exchange["body"]["logprobs"]
            ]
            by_word = {"true": 0.0, "false": 0.0}
            for token, logprob in positions[1]:
                if token.strip().lower() in by_word:
                    by_word[token.strip().lower()] += math.exp(logprob)
            score = soft_score(positions)
            assert score == pytest.approx(by_word["true"] / sum(by_word.values()), abs=0.01)
            read.append(score)
    assert len(read) == 5
    assert all(0 < score < 1 for score in read)


def test_a_recorded_answer_about_something_else_has_no_score() -> None:
    positions = [
        [(entry["token"], entry["logprob"]) for entry in at["top_logprobs"]] for at in recorded("chat_logprobs")["logprobs"]
    ]
    assert soft_score(positions) is None


def test_without_log_probabilities_the_score_is_hard_and_says_so() -> None:
    assert read_pair("True", []) == (1.0, "hard")
    assert read_pair("False", []) == (0.0, "hard")
    assert read_pair("False", [[("True", math.log(0.4)), ("False", math.log(0.4))]])[1] == "soft"
    assert read_pair("True", [[("Yes", math.log(0.4)), ("No", math.log(0.4))]]) == (1.0, "unlisted")


UNUSABLE = {
    "cut": ({"done_reason": "length", "content": '{"labels": ['}, "cut"),
    "white space until length": ({"done_reason": "length", "content": " \n" * 50}, "cut"),
    "empty": ({"content": "  "}, "empty"),
    "in its thinking": ({"content": "", "thinking": True}, "thinking"),
    "broken JSON": ({"content": '{"labels": ["a"'}, "not JSON"),
    "an empty enum's answer": ({"content": recorded("chat_emptyenum")["message"]["content"]}, "not JSON"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_no_answer_gives_its_reason(case: str) -> None:
    changes, reason = UNUSABLE[case]
    with pytest.raises(Unusable, match=reason):
        checked(reply(**changes), 83)


def test_an_answer_to_a_part_of_the_question_is_none() -> None:
    with pytest.raises(Cut, match="read 50 tokens of a question that has at least 83"):
        checked(reply(prompt_tokens=50), 83)
    assert checked(reply(prompt_tokens=83), 83) == checked(reply(prompt_tokens=None), 83) == "True"


def test_the_recorded_overflow_is_seen() -> None:
    told = recorded("chat_ctxoverflow")
    assert "6800 characters" in json.dumps(RECORDED["chat_ctxoverflow"]["request"])
    with pytest.raises(Cut):
        checked(reply('"x"', prompt_tokens=told["prompt_eval_count"]), fewest_tokens([{"content": "x" * 6800}]))


RANKED = {
    "outside": ({"labels": ["hat"]}, "outside"),
    "the true class": ({"labels": ["cat", "dog"]}, "true class"),
    "no list": ({"labels": "cat"}, "no list"),
    "empty": ({"labels": []}, "no list"),
    "not words": ({"labels": [1]}, "no list"),
    "something else": (["cat"], "no list"),
    "markup": ({"labels": ["<script>alert(1)</script>"]}, "outside"),
}


@pytest.mark.parametrize("case", RANKED)
def test_a_ranked_answer_that_may_not_be(case: str) -> None:
    value, reason = RANKED[case]
    with pytest.raises(Unusable, match=reason) as caught:
        read_ranked(value, {"cat": 0, "dog": 1, "horse": 2}, own="cat")
    assert "script" not in str(caught.value)


def test_a_ranked_answer_names_each_once() -> None:
    assert read_ranked({"labels": ["horse", "dog", "horse"]}, {"cat": 0, "dog": 1, "horse": 2}, own="cat") == [2, 1]


# --- keeping ---------------------------------------------------------------------------------------------------------------------


def test_answers_are_found_again(tmp_path: Path) -> None:
    one, two = Answer(0.25, "soft", seconds=0.1), Answer([3, 1], "ranked", first=2)
    with Answers(tmp_path, "abc") as answers:
        answers.put("one", one)
        answers.put("two", two)
        answers.put("none", Answer(None, reason="empty"))
    again = Answers(tmp_path, "abc")
    assert (again["one"], again["two"], again["none"].value) == (one, two, None)
    assert "one" not in Answers(tmp_path, "abd"), "another digest is another model"


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_costs_its_answer_alone(tmp_path: Path, cut: int) -> None:
    with Answers(tmp_path, "abc") as answers:
        for name in ("one", "two"):
            answers.put(name, Answer(0.5, "soft"))
    path = answers.path
    path.write_bytes(path.read_bytes()[:-cut])
    with Answers(tmp_path, "abc") as answers:
        assert "one" in answers
        assert ("two" in answers) == (cut == 1), "only the line's end is missing"
        answers.put("three", Answer(1.0, "soft"))
    assert {name for name in ("one", "two", "three") if name in Answers(tmp_path, "abc")} >= {"one", "three"}


def test_an_answer_taken_back_stays_away(tmp_path: Path) -> None:
    with Answers(tmp_path, "abc") as answers:
        answers.put("one", Answer(0.5))
        answers.put("two", Answer(0.5))
        answers.void(["two"])
    assert "one" in Answers(tmp_path, "abc")
    assert "two" not in Answers(tmp_path, "abc")


def test_two_processes_may_append_to_one_file(tmp_path: Path) -> None:
    with Answers(tmp_path, "abc") as one, Answers(tmp_path, "abc") as other:
        one.put("one", Answer(0.1))
        other.put("two", Answer(0.2))
        one.put("three", Answer(0.3))
    assert len(Answers(tmp_path, "abc")) == 3


def test_what_a_tag_pointed_to_is_remembered(tmp_path: Path) -> None:
    assert last_seen(tmp_path, "gemma3:4b") is None
    remember(tmp_path, "gemma3:4b", "abc", "then")
    remember(tmp_path, "other", "xyz", "then")
    remember(tmp_path, "gemma3:4b", "def", "now")
    assert last_seen(tmp_path, "gemma3:4b") == {"digest": "def", "seen": "now"}
    (tmp_path / "models.json").write_text("{broken")
    assert last_seen(tmp_path, "gemma3:4b") is None
    remember(tmp_path, "gemma3:4b", "abc", "then")
    assert last_seen(tmp_path, "gemma3:4b") == {"digest": "abc", "seen": "then"}


# --- sanity ----------------------------------------------------------------------------------------------------------------------


def test_a_model_that_says_true_to_everything_confirms_nothing() -> None:
    assert sanity.confirmed({0: 1.0, 1: 1.0}, {0: [1.0, 1.0], 1: [1.0]}) == 0
    assert sanity.confirmed({0: 0.9, 1: 0.4, 2: None}, {0: [0.1], 1: [0.0]}) == 0.5
    assert sanity.confirmed({0: None}, {}) is None


def test_repeat_agreement_is_of_sides_and_first_choices() -> None:
    pairs = [
        (Answer(0.6), Answer(0.9)),
        (Answer(0.6), Answer(0.4)),
        (Answer([1, 2]), Answer([1, 3])),
        (Answer([1, 2]), Answer([2, 1])),
        (Answer(None), Answer(0.4)),
    ]
    assert sanity.repeated(pairs) == 0.5
    assert sanity.repeated([]) is None


def test_position_bias_is_the_excess_over_chance() -> None:
    always_first = [Answer([1], first=0)] * 10
    assert sanity.place_bias([(answer, 5) for answer in always_first]) == pytest.approx(0.8)
    assert sanity.place_bias([(Answer([1], first=place), 5) for place in range(5)]) == 0
    assert sanity.place_bias([]) is None
    assert sanity.place_bias([(Answer([1], first=2), 3), (Answer([1], first=99), 100)]) == pytest.approx(1 - (1 / 3 + 0.01) / 2)
    assert sanity.order_bias([(Answer(0.9), Answer(0.3)), (Answer(0.5), Answer(0.1))]) == pytest.approx(0.5)


def test_a_measure_below_its_floor_fails_with_its_number_unless_it_is_named() -> None:
    measured = {"answered": 0.9, "own": 0.2, "symmetry": 0.5, "repeat": None, "position": 0.6}
    with pytest.raises(MeguError) as caught:
        sanity.demand(measured, Judging(), {})
    said = str(caught.value)
    assert "own 0.20" in said
    assert "at least 0.5" in said
    assert "position 0.60" in said
    assert "at most 0.3" in said
    assert "labeling.override=[own, position]" in said
    with pytest.raises(MeguError, match=r"position 0\.60"):
        sanity.demand(measured, Judging(override=("own",)), {})
    assert sanity.demand(measured, Judging(override=("own", "position")), {}) == ["own", "position"]
    assert sanity.demand({"own": 0.2}, Judging(min_own=0.1), {}) == []
