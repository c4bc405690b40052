"""The pipeline's table: that it fits the stages, and that one line adds one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REPOSITORY

from flows import pipeline
from flows.pipeline import COPIES, DATA, JUDGEMENT, JUDGEMENT_APART, ORIGINAL, PIPELINE, REPORT, REQUEST
from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from tasks.run.pipeline import Row, row, walk

WHOLE = (*REQUEST, *PIPELINE, *REPORT)
WIDE = {"seed", "device"}


def config(*settings: str) -> Config:
    return configuration.load(REPOSITORY / "params.yaml", settings)


@pytest.mark.parametrize("entry", WHOLE, ids=lambda entry: f"{entry.result}-{entry.stage.name}")
def test_a_row_has_every_argument_of_its_stage_and_takes_only_what_rows_before_it_make(entry: Row) -> None:
    before = {other.result for other in WHOLE[: WHOLE.index(entry)]} | WIDE
    assert {*entry.takes.values(), *entry.each} <= before
    wanted = inspect.signature(entry.stage.compute).parameters
    given = {*entry.takes, *entry.settings, *({"model"} if entry.each else ())}
    for time in entry.repeated(config("evaluation.shadows=2", "reference.repeats=2")) if entry.repeated else ():
        given |= set(time) - {"label"}
    assert given <= set(wanted)
    if entry.arguments is None:
        assert set(wanted) - {"project"} == given


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("labeling.kind=ollama",),
        ("original.weights=a.safetensors",),
        ("reference.weights=a.safetensors",),
        ("unlearn.method=retrain",),
        ("forget.near_duplicates=include",),
        ("reference.enabled=false",),
    ],
    ids=" ".join,
)
def test_rows_of_one_result_exclude_each_other(settings: tuple[str, ...]) -> None:
    values = config(*settings)
    runs = [entry.result for entry in WHOLE if all(holds(values) for holds in entry.when)]
    assert len(set(runs)) == len(runs)
    assert {"data", "split", "original", "before", "entanglement", "unlearned", "after", "evaluation", "figures"} <= set(runs)


def test_it_can_be_read_as_the_papers_figure() -> None:
    lines = Path(inspect.getfile(pipeline)).read_text(encoding="utf-8").splitlines()
    assert len(lines[lines.index("# fmt: off") :]) <= 60
    named = {entry.stage.name for entry in (DATA, COPIES, *ORIGINAL, *JUDGEMENT, *JUDGEMENT_APART, *WHOLE)}
    assert named == {entry.stage.name for entry in WHOLE}


class Noting:
    """Carries nothing out; every result is the name of its stage."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, stage: Stage, /, *, label: str = "", **arguments: Any) -> Any:
        self.calls.append((label or stage.name, arguments))
        return Result(label or stage.name, {}, {}, {}, {}, 0.0, {})


def called(project: Project, *settings: str) -> list[str]:
    run = Noting()
    walk(run, project, config(*settings), PIPELINE, {"data": "data", "split": "split"})
    return [name for name, _ in run.calls]


def test_what_runs_for_a_configuration(project: Project) -> None:
    plain = [
        "original",
        "predict original",
        "entanglement",
        "labeling",
        "transition",
        "perturbing",
        "noise",
        "unlearn",
        "predict unlearned",
        "reference",
        "predict reference",
    ]
    assert called(project, "evaluation.deep=false") == [*plain, "evaluation"]
    deep = called(project, "evaluation.deep=true", "reference.repeats=2", "evaluation.shadows=2", "evaluation.relearn=true")
    assert deep[-9:] == [
        "relearn unlearned",
        "relearn reference 1",
        "relearn reference 2",
        "deep unlearned",
        "deep reference 1",
        "deep reference 2",
        "shadow 1",
        "shadow 2",
        "evaluation",
    ]
    assert deep[9:13] == ["reference 1", "reference 2", "predict reference 1", "predict reference 2"]
    alone = called(project, "unlearn.method=finetune", "reference.enabled=false", "evaluation.deep=false")
    assert alone == ["original", "predict original", "entanglement", "unlearn", "predict unlearned", "evaluation"]
    exact = called(project, "unlearn.method=retrain", "reference.repeats=2", "evaluation.deep=false")
    assert exact[3:8] == ["reference 1", "unlearn", "predict unlearned", "reference 2", "predict reference 1"]


def test_a_retrain_has_its_own_seed_and_the_evaluation_all_of_them(project: Project) -> None:
    run = Noting()
    walk(run, project, config("reference.repeats=3", "seed=5"), PIPELINE, {"data": "data", "split": "split"})
    assert [given["seed"] for name, given in run.calls if name.startswith("reference ")] == [5, 6, 7]
    (evaluation,) = [given for name, given in run.calls if name == "evaluation"]
    assert [made.stage for made in evaluation["retrained"]] == [f"predict reference {number}" for number in (1, 2, 3)]
    assert evaluation["given"] is None
    assert evaluation["shadows"] == evaluation["relearned"] == []


def test_a_stage_is_its_function_and_one_line(project: Project) -> None:
    def count(project: Project, noise: Result, seed: int, share: float) -> Outcome:
        return Outcome(values={"seed": seed, "share": share})

    added = (*PIPELINE, row("counted", Stage("counted", "Count", count), "noise seed", share="calibration.share"))
    run = Noting()
    made = walk(run, project, config(), added, {"data": "data", "split": "split"})
    assert made["counted"].stage == "counted"
    name, given = run.calls[-1]
    assert (name, given["noise"].stage, given["seed"]) == ("counted", "noise", config().seed)
    assert given["share"] == config().calibration.share
