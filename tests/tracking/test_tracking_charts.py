"""The names of metrics in MLflow, by which it groups its charts."""

from __future__ import annotations

import math

import pytest

from megu.evaluation.guide import METRICS, OWN
from megu.evaluation.own import OwnMetric, fault
from megu.tracking import charts

UNLEARNED = {"Ar": 91.0, "Af": math.nan, "MIA": 20.0, "probe": 3.0, "blur": 0.5}


def named() -> dict[str, float]:
    spread = {"Ar": {"mean": 92.0, "low": 91.0, "high": 93.0, "std": 0.1, "n": 2}, "Af": {"low": None, "high": None}}
    comparison = {"gap": 1.0, "gap_original": 2.0}
    return charts.models(UNLEARNED, {"Ar": 90.0, "Af": None}, {"Ar": 92.0}, comparison, spread)


def test_the_metrics_of_a_run_have_a_group_each_and_the_undefined_are_left_out() -> None:
    assert named() == {
        "retained/Ar": 91,
        "attack/MIA": 20,
        "deep/probe": 3,
        "own/blur": 0.5,
        "original/Ar": 90,
        "reference/Ar": 92,
        "reference_low/Ar": 91,
        "reference_high/Ar": 93,
        "comparison/gap": 1,
        "comparison/gap_original": 2,
    }
    assert charts.models({"Ar": 91.0}, {"Ar": 90.0}, {}, {}) == {"retained/Ar": 91, "original/Ar": 90}


def test_every_metric_of_megu_is_in_a_group_that_is_not_another_models() -> None:
    groups = {name: metric.group for name, metric in METRICS.items()}
    assert [name for name, group in groups.items() if group == OWN] == [], "say which (megu/evaluation/guide.py)"
    compared = {name for name, group in groups.items() if group in charts.OTHERS}
    assert compared == {"gap", "ToW", "JS_forget", "JS_test"}
    assert all(list(groups.values()).count(group) > 1 for group in groups.values()), "a group of one is no group"


def test_the_unlearned_models_metrics_are_read_back_with_groups_and_from_before_there_were_any() -> None:
    spent = {"seconds/unlearn": 3.0, "seconds_computed/unlearn": 3.0, "cached/unlearn": 0.0, "peak_memory_bytes/unlearn": 1e8}
    defined = {name: value for name, value in UNLEARNED.items() if not math.isnan(value)}
    assert charts.of_unlearned({**named(), **spent, "cost/time_share": 0.1, "cost/peak_mib": 90.0}) == defined
    flat = {**defined, "original/Ar": 90.0, "reference/Ar": 92.0, "comparison/gap": 1.0, **spent}
    assert charts.of_unlearned({**flat, "time_share": 0.1, "pass_share": 0.2, "peak_mib": 90.0}) == defined


@pytest.mark.parametrize(("group", "usable"), [("sharpness", True), ("two words", False), ("a/b", False), ("", False)])
def test_the_group_of_another_packages_metric_is_a_word(group: str, usable: bool) -> None:
    metric = OwnMetric(title="t", unit="", right="0", why="w", group=group, compute=lambda *_: 0.0)
    assert (fault(metric) == "") == usable


def test_another_packages_metric_is_in_its_own_group_but_in_no_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(group: str) -> OwnMetric:
        return OwnMetric(title="t", unit="", right="0", why="w", group=group, compute=lambda *_: 0.0)

    monkeypatch.setattr(charts, "explained", lambda: {"blur": own("sharpness"), "trick": own("original")})
    assert set(charts.models({"blur": 1.0, "trick": 1.0}, {}, {}, {})) == {"sharpness/blur", "own/trick"}
