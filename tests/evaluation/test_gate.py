from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.evaluation.gate import DEEP, GateParams, Verdict, decide

BOUNDED = ("Af", "Af_train", "Ar", "MIA", "RMIA_TPR_1")


def evaluation(unlearned: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Evidence that holds in every point; ``unlearned``: other metrics of the unlearned model."""
    retrain = {"Af": 2.0, "Af_train": 1.0, "Ar": 90.0, "MIA": 58.0, "RMIA_TPR_1": 1.5}
    values = {
        "classes": ["Coat", "Bag", "Shirt"],
        "original": {"metrics": {"Af": 97.0, "RMIA_TPR_1": 9.0}, "per_class": [90.0, 97.0, 80.0]},
        "unlearned": {"metrics": {**retrain, **(unlearned or {})}, "per_class": [90.0, 0.0, 80.0]},
        "reference": {"metrics": retrain, "per_class": [91.0, 0.0, 79.0]},
        "spread": {},
    }
    return {**values, **changes}


def failing(values: dict[str, Any], **params: Any) -> dict[str, str]:
    return {rule.rule: rule.reason for rule in decide(values, GateParams(**params), champion="1").rules if rule.holds is False}


def test_good_evidence_passes_and_every_rule_says_value_bounds_and_reason() -> None:
    verdict = decide(evaluation(), GateParams(), champion="1")
    assert verdict.decision == "pass"
    assert verdict.failures == []
    found = {rule.rule: (rule.value, rule.low, rule.high) for rule in verdict.rules}
    assert found == {
        "evidence": (3.0, 3.0, None),
        "seeds": (1.0, 1.0, None),
        "forgotten, test": (2.0, None, 3.0),
        "forgotten, train": (1.0, None, 2.0),
        "retained, test": (90.0, 88.5, None),
        "each class, test": (1.0, None, 5.0),
        "MIA": (58.0, 48.0, 68.0),
        "shadow attack": (1.5, None, 6.5),
    }
    assert all(rule.reason for rule in verdict.rules)


def test_without_test_images_the_training_images_alone_are_judged_and_it_is_said() -> None:
    values = evaluation({"Af": 40.0}, Af_on="train")  # as it is measured then: what Af_train is
    (rule,) = (rule for rule in decide(values, GateParams(), champion="1").rules if rule.rule == "forgotten, test")
    assert (rule.holds, rule.value) == (None, None)
    assert "no test images" in rule.reason
    assert failing(values) == {}
    assert failing(evaluation({"Af_train": 40.0}, Af_on="train")) == {"forgotten, train": "training images NOT forgotten"}
    assert (
        failing(evaluation({"Af": 40.0}, Af_on="test"))
        == failing(evaluation({"Af": 40.0}))
        == {"forgotten, test": "NOT forgotten"}
    )


def test_single_images_beside_classes_are_judged_alone() -> None:
    values = evaluation({"Af_single": 80.0})
    values["reference"]["metrics"] = {**values["reference"]["metrics"], "Af_single": 60.0}
    assert failing(values) == {"forgotten, single images": "single images NOT forgotten"}
    assert failing(values, forget_margin=20) == {}
    assert failing(evaluation({"Af_single": 80.0}))["forgotten, single images"].startswith("not measured")


def test_a_way_out_is_named_where_something_is_known_still_and_only_there() -> None:
    assert decide(evaluation({"Af": 40.0}), GateParams(), champion="1").still_remembered
    assert decide(evaluation({"MIA": 90.0}), GateParams(), champion="1").still_remembered
    for values in (evaluation(), evaluation({"MIA": 1.0}), evaluation({"Ar": 10.0}), evaluation({"Af": None})):
        assert not decide(values, GateParams(), champion="1").still_remembered


def test_the_first_model_is_never_passed_without_a_person() -> None:
    assert decide(evaluation(), GateParams(), champion=None).decision == "needs a person"
    assert decide(evaluation({"Af": 40.0}), GateParams(), champion=None).decision == "fail"


@pytest.mark.parametrize(
    ("unlearned", "rule", "reason"),
    [
        ({"Af": 3.1}, "forgotten, test", "NOT forgotten"),
        ({"Af_train": 2.1}, "forgotten, train", "training images NOT forgotten"),
        ({"Ar": 79.6}, "retained, test", "10.4 points of the rest LOST"),
        ({"MIA": 68.1}, "MIA", "STILL RECOGNISED: MIA +10.1 points to the retrain"),
        ({"MIA": 47.9}, "MIA", "OVER-FORGOTTEN: MIA -10.1 points to the retrain"),
        ({"RMIA_TPR_1": 6.6}, "shadow attack", "STILL RECOGNISED: 6.6% found at 1% false alarms (retrain 1.5%)"),
    ],
)
def test_each_metric_beyond_its_bound_fails_its_rule_alone(unlearned: dict[str, float], rule: str, reason: str) -> None:
    assert failing(evaluation(unlearned)) == {rule: reason}


@pytest.mark.parametrize("at", [{"Af": 3.0}, {"Af_train": 2.0}, {"Ar": 88.5}, {"MIA": 48.0}, {"MIA": 68.0}])
def test_the_bound_itself_is_allowed(at: dict[str, float]) -> None:
    assert failing(evaluation(at)) == {}


def test_one_class_that_lost_is_named_and_the_forgotten_one_is_not_held_to_its_past() -> None:
    values = evaluation()
    values["unlearned"]["per_class"] = [85.9, 0.0, 60.0]
    assert failing(values) == {"each class, test": "19.0 points of Shirt LOST, 5.1 points of Coat LOST"}
    assert failing(values, class_drop=20.0) == {}


def test_a_reason_names_the_three_classes_that_lost_most() -> None:
    values = evaluation()
    del values["classes"]
    values["unlearned"]["per_class"] = [10.0 * k for k in range(6)]
    values["reference"]["per_class"] = [90.0] * 6
    lost = "90.0 points of class 0 LOST, 80.0 points of class 1 LOST, 70.0 points of class 2 LOST and of 3 classes more"
    assert failing(values) == {"each class, test": lost}


def test_a_class_without_test_images_is_left_out_and_a_mark_that_one_model_lacks_fails() -> None:
    values = evaluation()
    values["unlearned"]["per_class"][1] = values["reference"]["per_class"][1] = None
    assert failing(values) == {}
    values["unlearned"]["per_class"][0] = None
    assert failing(values) == {"each class, test": "not measured: the accuracy of each class of Coat"}
    values["unlearned"]["per_class"] = []
    assert failing(values) == {"each class, test": "not measured: the accuracy of each class"}


@pytest.mark.parametrize("model", ["unlearned", "reference"])
@pytest.mark.parametrize("metric", BOUNDED)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "gone"])
def test_a_missing_metric_fails(model: str, metric: str, value: Any) -> None:
    values = copy.deepcopy(evaluation())
    if value == "gone":
        del values[model]["metrics"][metric]
    else:
        values[model]["metrics"][metric] = value
    (reason,) = failing(values).values()
    assert reason == f"not measured: {metric} of {'unlearned model' if model == 'unlearned' else 'retrain'}"


def test_without_a_retrain_everything_that_needs_one_fails() -> None:
    values = evaluation()
    del values["reference"]
    found = failing(values)
    assert found["evidence"] == "not measured: reference"
    assert found["seeds"] == "only 0 retrains"
    assert set(found) == {rule.rule for rule in decide(values, GateParams(), champion="1").rules}
    assert decide({}, GateParams(), champion="1").decision == "fail"


def test_the_shadow_attack_counts_where_it_was_measured_or_is_required() -> None:
    values = evaluation()
    for model in ("original", "unlearned", "reference"):
        del values[model]["metrics"]["RMIA_TPR_1"]
    assert failing(values) == {}
    assert decide(values, GateParams(), champion="1").rules[-1].holds is None
    assert set(failing(values, attack_required=True)) == {"shadow attack"}


def test_too_few_seeds_fail() -> None:
    values = evaluation(spread={"Af": {"n": 3}})
    assert failing(values, min_seeds=3) == {}
    assert failing(values, min_seeds=4) == {"seeds": "only 3 retrains"}
    assert failing(evaluation(), min_seeds=2) == {"seeds": "only 1 retrain"}


@pytest.mark.parametrize("wrong", [{"mia_band": -1.0}, {"min_seeds": 0}, {"class_drop": 101.0}])
def test_thresholds_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GateParams(**wrong)


percents = st.floats(0, 100, allow_nan=False)
marks = st.fixed_dictionaries({name: st.one_of(st.none(), percents) for name in BOUNDED})
per_class = st.lists(st.one_of(st.none(), percents), min_size=3, max_size=3)
models = st.builds(lambda metrics, accuracies: {"metrics": metrics, "per_class": accuracies}, marks, per_class)
evidence = st.fixed_dictionaries({"original": models, "unlearned": models, "reference": models})
thresholds = st.builds(GateParams, forget_margin=percents, retain_drop=percents, class_drop=percents, mia_band=percents)
RANK = {"fail": 0, "needs a person": 1, "pass": 2}


def held(verdict: Verdict) -> list[bool]:
    return [rule.holds is not False for rule in verdict.rules]


@given(
    evidence, thresholds, st.sampled_from(["Af", "Af_train", "RMIA_TPR_1", "Ar", "MIA", "class", "lost"]), percents, st.data()
)
def test_worse_evidence_never_turns_fail_to_pass(
    values: dict[str, Any], params: GateParams, what: str, by: float, data: st.DataObject
) -> None:
    worse = copy.deepcopy(values)
    mine, reference = worse["unlearned"]["metrics"], worse["reference"]["metrics"]
    if what == "class":
        worse["unlearned"]["per_class"] = [None if one is None else one - by for one in worse["unlearned"]["per_class"]]
    elif what == "lost":
        mine[data.draw(st.sampled_from(BOUNDED))] = None
    elif mine[what] is not None:
        away = 1.0 if reference["MIA"] is not None and mine["MIA"] is not None and mine["MIA"] >= reference["MIA"] else -1.0
        mine[what] += by * {"Ar": -1.0, "MIA": away}.get(what, 1.0)
    before, after = (decide(found, params, champion="1") for found in (values, worse))
    assert RANK[after.decision] <= RANK[before.decision]
    assert all(now <= then for now, then in zip(held(after), held(before), strict=True))


@given(evidence, thresholds, st.sampled_from(["forget_margin", "retain_drop", "class_drop", "mia_band"]), percents)
def test_a_stricter_gate_never_lets_more_through(values: dict[str, Any], params: GateParams, name: str, by: float) -> None:
    strict = replace(params, **{name: max(0.0, getattr(params, name) - by)})
    assert RANK[decide(values, strict, champion="1").decision] <= RANK[decide(values, params, champion="1").decision]


@given(evidence, thresholds, st.sampled_from([None, "3"]))
def test_a_verdict_is_the_same_from_evidence_that_was_written_down(
    values: dict[str, Any], params: GateParams, champion: str | None
) -> None:
    written = json.loads(json.dumps(values))
    kept = GateParams(**json.loads(json.dumps(asdict(params))))
    assert decide(written, kept, champion=champion) == decide(values, params, champion=champion)


def alone(unlearned: dict[str, Any] | None = None, **held_out: Any) -> dict[str, Any]:
    """Evidence of a run without a retrain, of a whole class, that holds in every point."""
    metrics = {"Af": 0.5, "Af_train": 1.0, "Ar": 90.0, "MIA": 57.0, "RMIA_TPR_1": 1.5}
    held = {"Af_held_out": 0.5, "MIA_held_out": 58.0}
    return {
        "classes": ["Coat", "Bag", "Shirt"],
        "held_out": {"forgotten": 6000, "images": 1000, "chance": 33.0, **held_out},
        "original": {"metrics": {"Af": 97.0, "Ar": 90.5}, "per_class_retained": [90.0, None, 80.0]},
        "unlearned": {"metrics": {**metrics, **held, **(unlearned or {})}, "per_class_retained": [88.0, None, 80.5]},
    }


def not_judged(values: dict[str, Any], **params: Any) -> dict[str, str]:
    return {rule.rule: rule.reason for rule in decide(values, GateParams(**params), champion="1").rules if rule.not_judged}


@pytest.mark.parametrize("champion", ["1", None])
def test_without_a_retrain_good_evidence_is_less_than_a_pass_and_says_what_nobody_judged(champion: str | None) -> None:
    verdict = decide(alone(), GateParams(), champion=champion)
    assert (verdict.decision, verdict.failures) == ("passes without a retrain", [])
    found = {rule.rule: (rule.value, rule.low, rule.high) for rule in verdict.rules if rule.holds}
    assert found["evidence"] == (2.0, 2.0, None)
    assert found["forgotten, test"] == (0.5, None, 34.0), "chance and the margin"
    assert found["retained, test"] == (90.0, 89.0, None), "the original's and the drop"
    assert found["each class, test"] == (2.0, None, 5.0)
    assert found["shadow attack"] == (1.5, None, 6.0)
    value, low, high = found["MIA"]
    assert value == 57.0
    assert (low, high) == (pytest.approx(58.0 - 10 - 3.305, abs=0.01), pytest.approx(58.0 + 10 + 3.305, abs=0.01))
    assert not_judged(alone()) == {"seeds": "not judged: no retrain"}


@pytest.mark.parametrize(
    ("unlearned", "rule", "reason"),
    [
        ({"Af": 34.1}, "forgotten, test", "NOT forgotten"),
        (
            {"Af_train": 2.6},
            "forgotten, train",
            "training images NOT forgotten: +2.1 points to held-out images of the same classes",
        ),
        ({"Ar": 88.9}, "retained, test", "1.6 points of the rest LOST"),
        ({"MIA": 71.4}, "MIA", "STILL RECOGNISED: MIA +13.4 points to held-out images of the same classes"),
        ({"MIA": 44.6}, "MIA", "OVER-FORGOTTEN: MIA -13.4 points to held-out images of the same classes"),
        ({"RMIA_TPR_1": 6.1}, "shadow attack", "STILL RECOGNISED: 6.1% found at 1% false alarms"),
        ({"Af": None}, "forgotten, test", "not measured: Af of unlearned model"),
        ({"MIA_held_out": None}, "MIA", "not measured: what it is held to"),
    ],
)
def test_without_a_retrain_each_metric_beyond_its_bound_fails_its_rule_alone(
    unlearned: dict[str, Any], rule: str, reason: str
) -> None:
    assert failing(alone(unlearned)) == {rule: reason}
    assert decide(alone(unlearned), GateParams(), champion="1").decision == "fail"


def test_without_a_retrain_a_class_is_held_to_the_originals_and_several_retrains_that_are_asked_for_are_missed() -> None:
    values = alone()
    values["unlearned"]["per_class_retained"] = [80.0, None, 80.0]
    assert failing(values) == {"each class, test": "10.0 points of Coat LOST"}
    assert failing(alone(), min_seeds=3) == {"seeds": "only 0 retrains"}
    assert failing(alone({"RMIA_TPR_1": None}), attack_required=True) == {
        "shadow attack": "not measured: RMIA_TPR_1 of unlearned model"
    }


@pytest.mark.parametrize(
    ("held_out", "why"),
    [
        ({"images": 0}, "not judged: no retrain, and there are no held-out images of some forgotten classes"),
        (
            {"forgotten": 5},
            "not judged: no retrain, and 5 forgotten and 1,000 held-out images are too few to compare (gate.min_images = 100)",
        ),
    ],
)
def test_what_cannot_be_compared_with_held_out_images_is_not_judged(held_out: dict[str, Any], why: str) -> None:
    found = not_judged(alone({"Af_train": 100.0, "MIA": 0.0}, **held_out))
    assert (found["forgotten, train"], found["MIA"]) == (why, why)
    values = alone({"RMIA_TPR_1": None}, chance=None, **held_out)
    del values["unlearned"]["metrics"]["RMIA_TPR_1"]
    assert failing(values) == {
        "evidence": "nothing says whether it was forgotten: there is no retrain, and nothing that can take its place"
    }


def test_a_part_of_a_class_and_single_images_beside_classes_need_a_retrain() -> None:
    found = not_judged(alone({"Af": 70.0, "Af_single": 80.0}, chance=None))
    assert {"forgotten, test", "forgotten, single images"} < set(found)


def test_a_bound_is_as_much_wider_as_two_shares_differ_by_chance() -> None:
    """Of 100 images a retrain gets 84 right on average, and 90 often enough; one that memorised them gets all."""
    few = {"forgotten": 100, "images": 1000, "chance": None}
    assert failing(alone({"Af_train": 90.0, "Af_held_out": 84.0}, **few)) == {}
    assert "forgotten, train" in failing(alone({"Af_train": 100.0, "Af_held_out": 84.0}, **few))


def deeper(unlearned: dict[str, Any], reference: dict[str, Any], asked: int | None = 500, **changes: Any) -> dict[str, Any]:
    """Good evidence with deep checks. asked: forgotten images that they are of."""
    values = evaluation(unlearned, deep_asked=asked, **changes)
    values["reference"]["metrics"] = {**values["reference"]["metrics"], **reference}
    return values


CHECKED = {"probe": 80.0, "relearn_retain": 10.0, "relearn_few": 75.0}


@pytest.mark.parametrize(("rule", "metric"), [(rule, metric) for rule, (metric, _) in DEEP.items()])
def test_a_deep_check_is_held_to_the_retrain_alone_and_never_to_zero(rule: str, metric: str) -> None:
    assert failing(deeper(CHECKED, CHECKED)) == {}
    at, beyond = ({**CHECKED, metric: CHECKED[metric] + points} for points in (12.0, 12.5))
    assert failing(deeper(at, CHECKED)) == {}
    assert set(failing(deeper(beyond, CHECKED))) == {rule}
    assert failing(deeper(beyond, CHECKED))[rule].startswith("ONLY HIDDEN")
    assert failing(deeper(beyond, CHECKED), deep_margin=13) == {}
    assert decide(deeper(beyond, CHECKED), GateParams(), champion="1").still_remembered
    assert failing(deeper({**CHECKED, metric: 0.0}, CHECKED)) == {}, "below the retrain's is no knowledge"


def test_a_deep_check_that_is_missing_fails_and_too_few_images_are_not_held_to_it() -> None:
    part = {name: value for name, value in CHECKED.items() if name != "probe"}
    assert set(failing(deeper(part, CHECKED))) == {"probe"}
    assert set(failing(deeper({}, CHECKED))) == set(DEEP)
    for asked in (99, None):
        assert failing(deeper(dict.fromkeys(CHECKED, 100.0), CHECKED, asked)) == {}
    assert not set(DEEP) & {rule.rule for rule in decide(evaluation(), GateParams(), champion="1").rules}, "not measured"


def test_without_a_retrain_deep_checks_are_named_as_not_judged() -> None:
    assert not_judged(alone(CHECKED)) == dict.fromkeys(["seeds", *DEEP], "not judged: no retrain")
