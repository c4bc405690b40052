from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from megu.evaluation.gate import GateParams, decide, forgotten_test, retained
from megu.evaluation.summary import StageSummary, Summary
from megu.evaluation.text import conclusions, gate_rows, guided_rows
from megu.report import ReportData, headline, render, summary_markdown, summary_rows
from megu.report.figures import FigureData, NoisePictures, Samples, draw
from megu.unlearning.methods import METHODS

MARKS = {"Ar": 90.0, "Af": 97.0, "MIA": 40.0, "Ar_train": 91.0, "Af_train": 98.0, "test_accuracy": 90.5, "entropy_forget": 0.1}


def summary(**changes: Any) -> Summary:
    made = Summary(
        headline="Bag: 97.0% → 0.0%",
        stages=[
            StageSummary("noise", False, 1.5, 1.5, "never run before", "160 images", 2_345_600_000),
            StageSummary("split", True, 0.02, 1.0, "", ""),
        ],
        metrics={**MARKS, "Af": 0.0},
        original=MARKS,
        reference={**MARKS, "Af": 0.0, "Ar": 90.4},
        gap=1.25,
        time_share=21.0,
    )
    return replace(made, **changes)


def page(figures: dict[str, bytes] | None = None, **changes: Any) -> str:
    data = ReportData(
        title="Forgetting Bag",
        summary=summary(),
        entanglement={"score": 2.0, "nearest": {"Bag": ["Shirt", "Coat"]}},
        facts={"Data": {"data set": "fashion-mnist"}},
        params={"seed": 0, "noise": {"steps": 40}},
        lineage={"as text": "unlearn: weights 1234", "Mermaid": "flowchart LR"},
        links={"MLflow run": "http://127.0.0.1:5000/#/experiments/1/runs/2", "Prefect flow run": "an-id"},
    )
    return render(replace(data, **changes), figures or {})


def numbers(count: int, channels: int = 1) -> FigureData:
    random = np.random.default_rng(0)
    labels = tuple(f"class {k}" for k in range(count))
    groups = {"forget": random.random(50), "retain": random.random(200), "test": random.random(100)}
    everything = dict.fromkeys(("original", "unlearned", "reference"), groups)
    return FigureData(
        classes=labels,
        forgotten=(1,),
        per_class={name: random.random(count) * 100 for name in ("original", "unlearned", "reference")},
        soft=random.uniform(-1, 1, (count, count)),
        hard=random.random((count, count)),
        unique=random.random(count),
        transition=random.dirichlet(np.ones(count), count).T,
        samples=Samples(
            images=random.integers(0, 255, (7, 8, 8, channels), dtype=np.uint8),
            true=("class 1",) * 7,
            predicted=np.ones(7, dtype=np.int64),
            confidence=random.random(7),
            targets=random.dirichlet(np.ones(count), 7),
        ),
        noise=NoisePictures(labels[:3], *(random.normal(size=(3, channels, 8, 8)) for _ in range(3))),
        confidence=everything,
        entropy=everything,
        mia={"original": 10.0, "unlearned": 20.0, "reference": 30.0},
    )


@pytest.mark.parametrize(
    ("after", "reference", "said", "not_said"),
    [
        ({"Af": 0.0, "Ar": 90.1}, {"Af": 0.0, "Ar": 90.4}, "Bag: 97.0% → 0.0%; the rest 90.0% → 90.1% (retrain 90.4%)", "NOT"),
        ({"Af": 40.0, "Ar": 90.1}, {"Af": 0.0, "Ar": 90.4}, "NOT forgotten", "LOST"),
        ({"Af": 0.0, "Ar": 80.0}, {"Af": 0.0, "Ar": 90.4}, "10.4 points of the rest LOST", "NOT"),
        ({"Af": 60.0, "Ar": 80.0}, {"Af": 0.0, "Ar": 90.4}, "NOT forgotten and 10.4 points of the rest LOST", "no retrain"),
        ({"Af": 70.0, "Ar": 90.0}, {"Af": 70.0, "Ar": 90.4}, "→ 70.0%", "NOT"),
        ({"Af": 0.0, "Ar": 90.1}, None, "no retrain to compare with", "NOT"),
        ({"Af": None, "Ar": 90.1}, {"Af": None, "Ar": 90.4}, "— not measured: Af of unlearned model and retrain", "NOT"),
    ],
)
def test_the_headline_is_honest(after: dict[str, Any], reference: dict[str, Any] | None, said: str, not_said: str) -> None:
    values = {"original": {"metrics": MARKS}, "unlearned": {"metrics": after}}
    if reference:
        values["reference"] = {"metrics": reference}
    rules = (forgotten_test(values, GateParams()), retained(values, GateParams()))
    found = headline("Bag", values, [rule.reason for rule in rules if rule.holds is False])
    assert said in found
    assert not_said not in found


def test_a_given_retrain_is_called_that_wherever_it_is_shown() -> None:
    values = {name: {"metrics": {"Af": 1.0, "Ar": 90.0}} for name in ("original", "unlearned", "reference")}
    values["reference"] |= {"given": "a" * 64}
    assert "(given retrain 90.0%)" in headline("Bag", values, [])
    made = summary(given_reference="a" * 64, caveats=["The retrain was given."])
    assert "given retrain" in summary_rows(made)[0]
    assert "true retrain" not in summary_rows(made)[0]
    assert "The retrain was given." in summary_markdown(made)
    assert "This one was given, not trained here." in page(summary=made)
    assert "This one was given" not in page()


def test_the_page_is_self_contained() -> None:
    made = page({"transition": b"png", "noise": b"png"})
    assert re.findall(r'(?:src|href)="(?!data:|http://127)[^"]*"', made) == []
    assert made.count("data:image/png;base64,") == 2
    assert made.index("Transition matrix") < made.index("Feature noise")
    assert "<script" not in made


def test_a_headline_has_room_for_two_reasons() -> None:
    values = {"original": {"metrics": MARKS}, "unlearned": {"metrics": MARKS}, "reference": {"metrics": MARKS}}
    assert headline("Bag", values, ["a", "b"]).endswith(" — a and b")
    assert headline("Bag", values, ["a", "b", "c", "d"]).endswith(" — a and b (and 2 more)")


def test_the_page_shows_what_the_gate_said_and_by_which_rule() -> None:
    models = ("original", "unlearned", "reference")
    values = {
        name: {"metrics": {**MARKS, "MIA": 40.0 if name == "reference" else 80.0}, "per_class": [90.0]} for name in models
    }
    made = page(summary=summary(gate=decide(values, GateParams(), champion="3"), champion="3"))
    assert "Gate: fail" in made
    assert "STILL RECOGNISED: MIA +40.0 points to the retrain" in made
    assert "30.0 to 50.0" in made
    assert "Gate" not in page()
    passed = page(summary=summary(gate=decide(values, GateParams(mia_band=50.0), champion="3"), champion="3"))
    assert "version 3 is the champion that it would replace" in passed


def test_names_from_outside_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    made = page(
        title=hostile,
        facts={hostile: {hostile: hostile}},
        links={hostile: hostile},
        params={hostile: hostile},
        lineage={hostile: hostile},
    )
    assert "<script" not in made
    assert "&lt;script&gt;" in made


def test_the_same_run_gives_the_same_page() -> None:
    assert page({"noise": b"png"}) == page({"noise": b"png"})


def test_hits_and_misses_and_conclusions_are_on_the_page() -> None:
    made = page()
    assert re.search(r'<td>noise</td><td class="miss"', made)
    assert re.search(r'<td>split</td><td class="hit"', made)
    assert "21% of the retrain" in made.replace("&#39;", "'")
    assert "not zero" in made


def test_without_a_retrain_the_page_says_so() -> None:
    made = page(summary=summary(reference=None, gap=None, time_share=None))
    assert "nothing to compare it with" in made
    assert "true retrain" not in made


def test_what_is_judged_without_a_retrain_is_less_than_a_pass_and_the_rest_is_named() -> None:
    values = {
        "held_out": {"forgotten": 6000, "images": 1000, "chance": 10.0},
        "original": {"metrics": {"Af": 97.0, "Ar": 90.0}, "per_class_retained": [90.0]},
        "unlearned": {"metrics": {"Af": 0.0, "Ar": 90.1, "Af_train": 0.0, "Af_held_out": 0.0}, "per_class_retained": [90.0]},
    }
    values["unlearned"]["metrics"] |= {"MIA": 50.0, "MIA_held_out": 51.0}
    verdict = decide(values, GateParams(), champion="1")
    assert headline("Bag", values, verdict.failures) == "Bag: 97.0% → 0.0%; the rest 90.0% → 90.1%; judged without a retrain"
    assert headline("Bag", values, ["LOST"]).endswith("judged without a retrain — LOST")
    made = summary(
        reference=None, gap=None, time_share=None, gate=verdict, champion="1", metrics={**MARKS, "MIA_held_out": 51.0}
    )
    assert "There is no retrain, so the gate does not judge: seeds." in conclusions(made)
    assert {row["rule"]: row[""] for row in gate_rows(verdict.rules)}["seeds"] == "not judged"
    assert "MIA on held-out, same classes" in [row["metric"] for row in summary_rows(made)]
    text = page(summary=made)
    assert "Gate: passes without a retrain" in text
    assert "only a person can promote this model" in text
    assert "is the champion that it would replace" not in text


def test_the_spread_of_the_retrain_is_shown() -> None:
    spread = {"MIA": {"mean": 40.0, "low": 31.0, "high": 49.0, "std": 4.0, "n": 3}}
    rows = {row["metric"]: row for row in summary_rows(summary(spread=spread))}
    assert rows["MIA: called members"]["true retrain"] == "40.0% [31.0, 49.0], 3 seeds"
    assert "[31.0, 49.0]" in summary_markdown(summary(spread=spread))


def test_every_metric_of_the_run_says_on_the_page_what_is_right() -> None:
    comparison = {"gap": 1.25, "gap_original": 36.7, "gap_reference": 0.8, "JS_forget": 0.031}
    attacked = {**MARKS, "RMIA_AUC": 0.512, "relearn_steps": None}
    made = summary(metrics=attacked, original={**MARKS, "RMIA_AUC": 0.9, "relearn_steps": 0}, comparison=comparison)
    rows = {row["metric"]: row for row in guided_rows(made)}
    assert rows["mean gap over Ar, Af, MIA"]["original"] == "36.70 points"
    assert rows["mean gap over Ar, Af, MIA"]["unlearned"] == "1.25 points"
    assert rows["mean gap over Ar, Af, MIA"]["true retrain"] == "0.80 points"
    assert rows["Jensen-Shannon on forgotten"]["true retrain"] == "—"
    assert rows["shadow attack (RMIA): AUC"]["unlearned"] == "0.512"
    assert (rows["relearn time"]["original"], rows["relearn time"]["unlearned"]) == ("0 steps", "—")
    assert "tug of war (ToW)" not in rows, "it was not measured"
    assert len(summary_rows(made)) == 7, "the terminal's table stays short"
    shown = page(summary=made)
    for entry in rows.values():
        assert entry["why"].replace("'", "&#39;") in shown
        assert f"<strong>{entry['right']}</strong>".replace("'", "&#39;") in shown
    assert made.to_json()["comparison"]["gap_reference"] == 0.8


@pytest.mark.parametrize(("count", "channels"), [(3, 1), (10, 3), (100, 3)])
def test_every_figure_is_drawn(count: int, channels: int) -> None:
    drawn = draw(numbers(count, channels))
    assert list(drawn) == ["per-class-accuracy", "samples", "entanglement", "transition", "noise", "confidence", "entropy"]
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert draw(numbers(3)) == draw(numbers(3))


def test_what_is_missing_is_left_out() -> None:
    only = FigureData(classes=("a", "b"), forgotten=(), per_class={"original": np.array([50.0, np.nan])})
    assert list(draw(only)) == ["per-class-accuracy"]


def test_dollar_signs_in_names_are_no_formulas() -> None:
    data = replace(numbers(3), classes=("$x_1$", "100 $", "\\frac"))
    assert draw(data)["transition"].startswith(b"\x89PNG")


def test_the_table_of_times_says_what_was_held_in_memory() -> None:
    times = page().partition("<h2>Times</h2>")[2]
    assert times.count("MB</td>") == 1, "of the stage that measured it"
    assert "2,346 MB" in times


def test_an_accuracy_of_training_images_is_called_that_wherever_it_is_shown() -> None:
    asked = summary(af_on="train")
    assert summary_rows(asked)[0]["metric"] == guided_rows(asked)[0]["metric"] == "Af: forgotten, train (no test)"
    assert "Af: forgotten, train (no test)" in page(summary=asked)
    assert asked.to_json()["Af_on"] == "train"
    values = {name: {"metrics": MARKS} for name in ("original", "unlearned", "reference")}
    assert headline("Bag", {**values, "Af_on": "train"}, []).startswith("Bag (its training images): 97.0%")
    for older in (values, {**values, "Af_on": "test"}):
        assert headline("Bag", older, []).startswith("Bag: 97.0%")


@pytest.mark.parametrize(
    ("passes", "said"),
    [(None, "."), (0.4567, ", 0.46% of its passes through the network."), (130.0, ", 130% of its passes through the network.")],
)
def test_what_the_unlearning_cost_beside_the_retrain_is_said(passes: float | None, said: str) -> None:
    line = "Noise and re-optimisation took 21% of the retrain's time"
    assert line + said in conclusions(summary(pass_share=passes))
    assert summary(pass_share=passes).to_json()["pass_share"] == passes
    alone = conclusions(summary(pass_share=passes, stages=[]))
    assert "Unlearning took 21% of the retrain's time" + said in alone
    assert not [entry for entry in conclusions(summary(pass_share=passes, time_share=None)) if "passes" in entry]


def test_what_to_try_is_said_where_something_is_known_still() -> None:
    from tasks.records.record import way_out

    for name in METHODS:
        said = way_out(name)
        other = re.search(r"--set unlearn\.method=(\w+)", said)
        assert other is not None
        assert other[1] in METHODS
        assert other[1] not in (name, "retrain")
        own = {entry.name for entry in fields(METHODS[name].params)}
        assert {found for found in re.findall(r"unlearn\.(\w+)", said) if found != "method"} <= own
    assert "raise unlearn.steps" in page(summary=summary(advice=way_out("megu")))
    assert conclusions(summary(advice=way_out("megu")))[-1] == way_out("megu")
    assert "To forget more" not in page()
