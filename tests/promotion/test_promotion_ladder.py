"""The ladder's rungs and its budget: no run, no training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.config.tree import merged, parse
from megu.core.errors import MeguError
from megu.evaluation.summary import Rung
from megu.promotion import ladder
from megu.promotion.ladder import Costs, Step
from megu.promotion.params import LadderParams
from megu.unlearning.methods import METHODS, Span, fault
from megu.unlearning.methods.megu import MeguParams

SEARCHED = [name for name, method in METHODS.items() if method.main]


def rungs_of(method: str = "megu", seed: int = 0, **values: Any) -> list[Step]:
    return ladder.steps(method, METHODS[method].params(), LadderParams(**values), seed)


def done(number: int, method: str, seconds: float, compute: float) -> Rung:
    return Rung(
        number=number,
        method=method,
        params={},
        outcome="fail",
        says=[],
        seconds=seconds,
        compute_seconds=compute,
        mlflow_run_id="r",
    )


def test_the_configured_method_comes_first_then_the_list_and_the_retrain_last() -> None:
    found = rungs_of(methods=("delete", "megu", "ssd"), trials=2)
    assert [step.method for step in found] == ["megu", "megu", "delete", "delete", "ssd", "ssd", "retrain"]
    assert [step.number for step in found] == list(range(1, 8))
    assert [bool(step.drawn) for step in found] == [False, True, False, True, False, True, False]
    own = MeguParams(steps=7)
    assert ladder.steps("megu", own, LadderParams(methods=(), trials=1), 0)[0].params == own
    assert [step.method for step in rungs_of("retrain")] == ["retrain"]


@given(seed=st.integers(0, 2**31 - 1), trials=st.integers(1, 12), method=st.sampled_from(SEARCHED))
def test_every_draw_is_valid_another_one_and_the_same_for_the_same_seed(seed: int, trials: int, method: str) -> None:
    found = rungs_of(method, seed, methods=(), trials=trials)
    assert found == rungs_of(method, seed, methods=(), trials=trials)
    params = [step.params for step in found[:-1]]
    assert all(one != other for at, one in enumerate(params) for other in params[:at])
    assert len(params) == trials or "epochs" in METHODS[method].main
    for step in found[:-1]:  # its own checks held when it was made; what is not searched stays
        assert replace(step.params, **{name: getattr(params[0], name) for name in METHODS[method].main}) == params[0]
        assert step.cost > 0


def test_another_seed_draws_others() -> None:
    assert rungs_of(seed=1) != rungs_of(seed=2)


@given(base=st.integers(1, 1000), share=st.floats(0, 1))
def test_a_span_stays_within_its_factors_and_whole_numbers_stay_whole(base: int, share: float) -> None:
    span = Span(low=0.5, high=4, most=2000)
    whole, real = span.at(base, share), span.at(float(base), share)
    assert isinstance(whole, int)
    assert max(1, base // 2) <= whole <= min(4 * base, 2000)
    assert 0.499 * base <= real <= min(4.001 * base, 2000)


def test_every_method_says_how_its_main_parameters_are_searched_but_the_retrain() -> None:
    assert [name for name, method in METHODS.items() if not method.main] == ["retrain"]
    assert all(fault(method) == "" for method in METHODS.values())
    wrong = replace(METHODS["megu"], main={"lr": Span(low=1, high=2)})  # "auto" is no number
    assert fault(wrong) == "lr is searched (main), but is not a number among its parameters"


KNOWN = Costs(training=100, first=2, last=0, methods={"delete": 10.0})


def test_a_rung_costs_what_its_method_did_and_what_the_first_run_makes_once() -> None:
    planned = rungs_of(methods=("delete", "ssd"), trials=2)
    first, again, delete, _, ssd, *_, retrain = planned
    assert ladder.expected(first, planned, [], KNOWN) == 100 + 2 * 100, "what was never run is taken to cost a training"
    tried = [done(1, "megu", seconds=245, compute=40)]  # 40 s of its own, two trainings, 5 s for all the rest
    assert ladder.expected(again, planned, tried, KNOWN) == pytest.approx(40 * again.cost + 5)
    assert again.cost == pytest.approx(again.drawn["steps"] / 160)
    assert ladder.expected(delete, planned, tried, KNOWN) == 15
    assert ladder.expected(ssd, planned, tried, KNOWN) == 105
    assert ladder.expected(retrain, planned, tried, KNOWN) == 5, "it is the reference, which is there"
    alone = replace(KNOWN, first=0, last=1)
    assert ladder.expected(retrain, planned, [done(1, "megu", seconds=45, compute=40)], alone) == 105
    assert ladder.expected(first, planned, [], Costs(methods={}, first=1)) is None


@pytest.mark.parametrize(("hours", "fits"), [(300 / 3600, True), (299 / 3600, False)])
def test_a_rung_fits_with_the_time_kept_for_the_retrain_or_is_left_out_with_the_figures(hours: float, fits: bool) -> None:
    planned, costs = rungs_of(methods=("ssd",), trials=1), replace(KNOWN, first=0, last=1)
    tried = [done(1, "megu", seconds=100, compute=100)]
    why = ladder.skipped(planned[1], planned, tried, costs, hours)
    assert (why == "") == fits
    if not fits:
        assert why.startswith("it would take about 100 s, and of the 0.083")
        assert why.endswith("h (promotion.ladder.hours) 3 min are left, 100 s of them for the retrain")
    assert ladder.skipped(planned[2], planned, tried, costs, hours / 1000) == "", "the retrain is never left out"


@given(costs=st.lists(st.floats(0, 400), min_size=12, max_size=12), hours=st.floats(0.03, 0.3))
def test_where_rungs_cost_what_is_expected_the_ladder_ends_within_its_budget(costs: list[float], hours: float) -> None:
    planned = rungs_of(methods=("delete", "ssd"), trials=4)
    known = Costs(training=60, first=0, last=1, methods=dict(zip(("megu", "delete", "ssd"), costs, strict=False)))
    tried: list[Rung] = []
    for step in planned:
        if not ladder.skipped(step, planned, tried, known, hours):
            takes = ladder.expected(step, planned, tried, known)
            assert takes is not None
            tried.append(done(step.number, step.method, takes, takes))
    assert tried[-1].method == "retrain"
    assert sum(rung.seconds for rung in tried) <= 3600 * hours + 1e-6


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("hours=-1", "promotion.ladder.hours = -1.0 is out of range: it must be above 0"),
        ("hours=.nan", "promotion.ladder.hours = nan is out of range"),
        ("trials=0", "promotion.ladder.trials = 0 is out of range: it must be between 1 and 100"),
        ("methods=[delet]", "promotion.ladder.methods = 'delet' is out of range: it must be a method; did you mean delete?"),
        ("methods=[retrain]", "promotion.ladder.methods = 'retrain' is out of range: it must be left out"),
        ("methods=[ssd, ssd]", "promotion.ladder.methods = ['ssd', 'ssd'] is out of range: it must be a list that names each"),
        ("when=sometimes", "promotion.ladder.when = 'sometimes': input should be 'requests', 'always' or 'never'"),
        ("hour=3", "unknown key promotion.ladder.hour"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_key(setting: str, says: str) -> None:
    with pytest.raises(MeguError) as caught:
        parse(merged({}, [f"promotion.ladder.{setting}"]))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_changes_one_key_of_the_ladder_and_leaves_the_file_as_it_is() -> None:
    values = {"promotion": {"policy": "automatic", "ladder": {"trials": 5}}}
    found = parse(merged(values, ["promotion.ladder.hours=2", "promotion.ladder.methods=[ssd]"])).promotion
    assert (found.policy, found.ladder) == ("automatic", LadderParams(trials=5, hours=2, methods=("ssd",)))
    assert values == {"promotion": {"policy": "automatic", "ladder": {"trials": 5}}}
    with pytest.raises(MeguError, match=r"promotion\.ladder is a single value"):
        merged({"promotion": {"ladder": 3}}, ["promotion.ladder.hours=2"])
