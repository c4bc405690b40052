"""How the rungs follow each other, with a stand-in for the run: no server, no training."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from climbing import Runs, costed

from megu.config.tree import Config, parse
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.evaluation.gate import RuleResult
from megu.lineage import dossier as folder_of
from megu.lineage.promoted.rungs import rung_of
from megu.promotion.ladder import Costs
from megu.requests.overview import overview
from megu.requests.request import RequestParams
from tasks.records import ladder

LADDER = {"methods": ["delete"], "trials": 2, "hours": 1}
NAMES = ["megu", "megu", "delete", "delete", "retrain"]


class Killed(BaseException):
    pass


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(ladder, "costs", lambda project, config: Costs(training=8.0, first=0, last=0, methods={}))
    return parse({"promotion": {"ladder": LADDER}})


def events(project: Project, kind: str = "ladder.") -> list[Any]:
    return [event.facts | {"kind": event.kind} for event in project.ledger.events(kind=kind)]


def numbers(project: Project) -> list[int]:
    return [facts["number"] for facts in events(project, ladder.RUNG)]


def test_the_first_that_passes_ends_it(project: Project, config: Config) -> None:
    runs = Runs(passes=[3])
    climb = ladder.climb(project, config, {"batch": "b"}, runs, batch="b")
    assert runs.made == [(1, "megu"), (2, "megu"), (3, "delete")]
    assert (climb.refused, [rung.outcome for rung in climb.summary.ladder]) == ("", ["fail", "fail", "pass"])
    assert [facts["outcome"] for facts in events(project)] == ["fail", "fail", "pass"]
    assert {facts["batch"] for facts in events(project)} == {"b"}
    assert project.ledger.check() == []
    assert b"Sneaker" not in project.ledger.path.read_bytes(), "what is forgotten is not in the ledger"


def test_what_nothing_else_passes_ends_with_the_retrain(project: Project, config: Config) -> None:
    climb = ladder.climb(project, config, {}, runs := Runs(passes=[5]))
    assert [method for _, method in runs.made] == NAMES
    assert climb.refused == ""
    assert climb.summary.ladder[-1].method == "retrain"


@pytest.mark.parametrize("rung", range(1, 6))
@pytest.mark.parametrize("when", ["during", "after"])
def test_killed_at_any_rung_it_goes_on_there(project: Project, config: Config, rung: int, when: str, monkeypatch: Any) -> None:
    def die(number: int) -> None:
        if number == rung:
            raise Killed

    first = Runs(passes=[5], during=die if when == "during" else lambda number: None)
    if when == "after":  # the run is done and sealed, and its event is not written
        append = type(project.ledger).append

        def cut(self: Any, kind: str, subject: str, facts: Any, **more: Any) -> Any:
            if facts.get("number") == rung:
                raise Killed
            return append(self, kind, subject, facts, **more)

        with monkeypatch.context() as patch:
            patch.setattr(type(project.ledger), "append", cut)
            with pytest.raises(Killed):
                ladder.climb(project, config, {}, first)
    else:
        with pytest.raises(Killed):
            ladder.climb(project, config, {}, first)
    again = Runs(passes=[5])
    again.made = list(first.made)  # their dossiers are there
    climb = ladder.climb(project, config, {}, again)
    assert [number for number, _ in again.made[len(first.made) :]] == list(range(rung, 6)), "what was finished is not run again"
    assert numbers(project) == [1, 2, 3, 4, 5]
    assert [found.method for found in climb.summary.ladder] == NAMES
    for found in climb.summary.ladder[:-1]:
        files = folder_of.read(project.dossiers / found.mlflow_run_id)
        made = folder_of.parse(files[folder_of.MAIN], folder_of.MAIN)
        assert found == rung_of(made, costed(), folder_of.sha256(files[folder_of.MAIN]))


def test_a_rung_whose_dossier_is_gone_or_changed_is_run_again(project: Project, config: Config) -> None:
    with pytest.raises(RuntimeError):
        ladder.climb(project, config, {}, first := stopping(5))
    (project.dossiers / f"{2:032x}" / folder_of.MAIN).write_bytes(b"{}")
    again = Runs(passes=[2])
    again.made = list(first.made)
    assert ladder.climb(project, config, {}, again).summary.ladder[-1].number == 2


def stopping(at: int) -> Runs:
    """Runs of which one fails in itself, and the last with it."""

    def fail(number: int) -> None:
        if number == at:
            raise RuntimeError("out of memory in /somewhere for Sneaker")

    return Runs(during=fail)


def test_a_method_that_fails_in_itself_is_left_out_but_the_first_and_the_last(project: Project, config: Config) -> None:
    runs = stopping(3)
    runs.passes = [5]
    climb = ladder.climb(
        project, config.model_copy(update={"forget": parse({"forget": {"classes": ["Sneaker"]}}).forget}), {}, runs
    )
    (left,) = [rung for rung in climb.summary.ladder if rung.outcome == "error"]
    assert (left.number, left.method, left.says) == (3, "delete", ["RuntimeError: out of memory in … for …"])
    assert climb.refused == ""
    for at in (1, 5):
        with pytest.raises(RuntimeError):
            ladder.climb(Project(project.root / str(at)), config, {}, stopping(at))


def test_an_outage_ends_it_at_any_rung_and_the_next_goes_on(project: Project, config: Config) -> None:
    def away(number: int) -> None:
        if number == 2:
            raise MeguError("the MLflow server does not answer", "start it") from ConnectionRefusedError()

    with pytest.raises(MeguError):
        ladder.climb(project, config, {}, Runs(during=away))
    assert numbers(project) == [1]


def test_what_does_not_fit_is_left_out_and_said_and_the_retrain_is_not(
    project: Project, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Costs(training=3000.0, first=0, last=0, methods={"megu": 4.0})
    monkeypatch.setattr(ladder, "costs", lambda project, config: known)
    ladder.climb(project, config, {}, runs := Runs(passes=[5]))
    assert [number for number, _ in runs.made] == [1, 2, 3, 4, 5]
    project = Project(project.root / "another")
    monkeypatch.setattr(ladder, "costs", lambda project, config: replace(known, last=1))  # two trainings do not fit
    climb = ladder.climb(project, config, {}, runs := Runs(passes=[5]))
    assert [number for number, _ in runs.made] == [1, 2, 5]
    assert [rung.outcome for rung in climb.summary.ladder] == ["fail", "fail", "skipped", "skipped", "pass"]
    (said,) = climb.summary.ladder[2].says
    assert "it would take about" in said
    assert [facts["why"] for facts in events(project, ladder.SKIPPED)] == [said, climb.summary.ladder[3].says[0]]


def test_a_gate_that_even_the_retrain_fails_is_refused_and_not_tried_in_a_loop(project: Project, config: Config) -> None:
    climb = ladder.climb(project, config, {}, Runs())
    assert climb.refused == "the gate turned down even the exact retrain (megu/2): forgotten, test"
    ladder.end(project, climb)
    assert events(project, ladder.ENDED)[0]["outcome"] == "refused"
    shown = overview(project, "megu", RequestParams()).ladder
    assert shown is not None
    assert (shown["outcome"], [rung["number"] for rung in shown["rungs"]]) == ("refused", [1, 2, 3, 4, 5])
    again = Runs()
    again.made = [(0, "")] * 5
    ladder.climb(project, config, {}, again)
    assert len(again.made) == 10, "asked again by a person, it begins from the first"


def test_what_no_model_can_mend_goes_to_the_retrain_at_once(project: Project, config: Config) -> None:
    climb = ladder.climb(project, config, {}, runs := Runs(passes=[1, 2, 3, 4, 5], seeds=3))
    assert [method for _, method in runs.made] == ["megu", "retrain"]
    assert climb.refused.endswith("seeds")
    assert climb.summary.ladder[1].says == ["no method mends what failed: seeds"]
    rule = {"value": None, "low": None, "high": None}
    lost = RuleResult(rule="MIA", holds=False, reason="not measured: MIA of unlearned model", **rule)
    assert not lost.of_any_model, "another model may have it"
    assert replace(lost, reason="not measured: MIA of unlearned model and retrain").of_any_model


def test_a_budget_below_a_training_is_refused_and_one_that_nobody_knows_is_not(
    project: Project, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for training, refused in ((None, False), (3600.0, False), (3700.0, True)):
        monkeypatch.setattr(ladder, "costs", lambda *arguments, training=training: Costs(training=training, methods={}))
        if refused:
            with pytest.raises(
                MeguError, match=r"promotion\.ladder\.hours = 1 is less than the retrain at its end takes, about 62 min"
            ):
                ladder.refuse_small_budget(project, config)
        else:
            ladder.refuse_small_budget(project, config)


def test_a_plan_has_every_rung_with_what_it_may_cost(project: Project, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["method"] for row in ladder.plan(project, config)] == NAMES
    assert json.loads(json.dumps(ladder.plan(project, config)))[0]["seconds"] == 8
    monkeypatch.setattr(ladder, "costs", lambda *arguments: Costs(first=2, last=0, methods={}))
    assert {row["seconds"] for row in ladder.plan(project, config)} == {None}
