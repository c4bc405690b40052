"""What report, terminal and tags say of a labeler that was asked: how its answers were scored, and its own words, escaped."""

from __future__ import annotations

import json
from collections import Counter
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest

from megu.cli import terminal
from megu.evaluation.summary import Summary
from megu.labeling.ollama.labeler import describe_scoring, scoring_lines
from megu.report import ReportData, render
from tasks.records.record import labeler_facts
from tasks.records.show import Shown

SOFT = "soft scores: read from the log-probabilities"
HARD = "hard 0/1 scores: the server gave no log-probabilities"
UNLISTED = "hard 0/1 scores: True and False were not among the 20 likeliest tokens"
RANKED = "ranked answers: scored by the order of the classes that they name"
HOSTILE = "both have <b>sleeves</b> & 'cuffs' [red]"


def judged(scoring: dict[str, int], **more: Any) -> Any:
    counts = dict.fromkeys(("asked", "answered", "abstained", "retried", "seconds", "prompt_tokens", "tokens"), 7)
    record = {**counts, "sanity": {"own": 0.9}, "overridden": [], "scoring": scoring, **more}
    labeler = dict.fromkeys(("kind", "name", "version", "digest"), "x")
    return SimpleNamespace(values={"labeler": labeler}, notes={"record": record})


SCORINGS = {
    "soft": ({"soft": 1200}, [f"1,200 {SOFT}"], ", soft scores"),
    "hard": ({"hard": 3}, [f"3 {HARD}"], ", 3 hard 0/1 scores (the server gave no log-probabilities)"),
    "unlisted": (
        {"unlisted": 2},
        [f"2 {UNLISTED}"],
        ", 2 hard 0/1 scores (True and False were not among the 20 likeliest tokens)",
    ),
    "ranked": ({"ranked": 30}, [f"30 {RANKED}"], ""),
    "all": (
        {"soft": 4, "hard": 3, "unlisted": 2, "ranked": 1},
        [f"4 {SOFT}", f"3 {HARD}", f"2 {UNLISTED}", f"1 {RANKED}"],
        ", 4 soft scores, 3 hard 0/1 scores (the server gave no log-probabilities), "
        "2 hard 0/1 scores (True and False were not among the 20 likeliest tokens)",
    ),
}


@pytest.mark.parametrize("case", SCORINGS)
def test_each_way_of_scoring_is_a_line_with_its_count(case: str) -> None:
    scoring, lines, words = SCORINGS[case]
    assert scoring_lines(scoring) == lines
    assert describe_scoring(Counter(scoring)) == words
    facts = labeler_facts(judged(scoring), [])
    assert [value for name, value in facts.items() if name.startswith("scores")] == lines


def test_a_labeler_that_was_not_asked_has_no_scores() -> None:
    prototype = SimpleNamespace(values=judged({}).values, notes={})
    assert set(labeler_facts(prototype, ["Coat"])) == {"kind", "name", "version", "digest"}  # type: ignore[arg-type]


def test_reasons_stand_beside_the_classes_of_the_request_and_are_escaped_in_the_report() -> None:
    facts = labeler_facts(judged({"ranked": 1}, because={"Coat": [HOSTILE, "collars"], "Bag": ["a strap"]}), ["Coat"])
    assert facts["Coat, in its words"] == f"{HOSTILE}; collars"
    assert "a strap" not in json.dumps(facts)
    marks = dict.fromkeys(("Ar", "Af", "MIA", "Ar_train", "Af_train", "test_accuracy", "entropy_forget"), 1.0)
    summary = Summary(headline="", stages=[], metrics=marks, original=marks, reference=None)
    page = render(ReportData("", summary, {}, {"Labeler": facts}, {}, {}, {}), {})
    assert "<b>sleeves" not in page
    row = page.partition("Coat, in its words</td>")[2].partition("</tr>")[0]
    assert HOSTILE in unescape(row)


def test_the_terminal_shows_scores_and_reasons_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Shown(
        "x", {"Coat": {"Bag": 0.5}}, {"Coat": 1.0}, {"Coat": 0}, {}, {}, {}, "p.png", {"Coat": [HOSTILE]}, [f"3 {HARD}"]
    )
    terminal.print_shown(shown, as_json=False)
    said = capsys.readouterr().out
    assert f"3 {HARD}\n" in said
    assert f"Coat, in its words: {HOSTILE}\n" in said
    terminal.print_shown(shown, as_json=True)
    assert json.loads(capsys.readouterr().out)["scoring"] == [f"3 {HARD}"]
