"""The real benchmark on a small real slice: real Prefect, real MLflow, a real Dask cluster."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lineage_fixtures import slice_of

from megu.bench.outcome import Outcome
from megu.core.progress import watching
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

BENCH = """
title: A small one
base:
  device: cpu
  data: {name: slice, per_class: 60}
  train: {epochs: 1, batch_size: 64}
  labeling: {exemplars: 3, references: 5, image_size: 64}
  noise: {per_label: 2, steps: 3}
  unlearn: {steps: 5, lr: 0.01, batch_size: 64, retain_samples: 400}
methods:
  - megu
  - retrain
  - {name: quick finetune, method: finetune, set: {unlearn.epochs: 1}}
  - {name: too many, method: megu, set: {labeling.exemplars: 500}}
targets: [{classes: [Bag]}]
seeds: [0, 1]
"""
#: Distinct stages: data, labeling, transition; by seed split, original, reference, their predictions, entanglement, perturbing, noise,
#: and for each of two methods that work unlearning, predictions and evaluation. The third fails when it is to be labelled.
STAGES = 3 + 2 * (8 + 2 * 3)


class Interrupting:
    """A listener that is Ctrl-C after so many stages."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage_starts(self, name: str, title: str) -> None: ...

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...


def made(root: Path, dataset: Dataset) -> Project:
    slice_of(dataset, root)
    (root / "params.yaml").write_text("seed: 0\n")
    (root / "small.yaml").write_text(BENCH)
    return Project(root)


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield patch


def go(project: Project, environment: pytest.MonkeyPatch, *settings: str, **where: Any) -> Outcome:
    from flows.bench import run

    environment.setenv("MEGU_PROJECT", str(project.root))
    return run(project.root / "small.yaml", list(settings), **where)


@contextmanager
def logged() -> Iterator[list[tuple[str, str]]]:
    """Collect what flow runs log, as Prefect shows it: pairs of level and message."""
    handler, found = logging.Handler(), list[tuple[str, str]]()
    handler.emit = lambda record: found.append((record.levelname, record.getMessage()))  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset) -> Project:
    return made(tmp_path_factory.mktemp("bench"), fashion_mnist)


@pytest.fixture(scope="module")
def first(project: Project, environment: pytest.MonkeyPatch) -> Outcome:
    """The benchmark after it has been interrupted once, when seven stages were done."""
    with pytest.raises(KeyboardInterrupt), watching(Interrupting(7)):
        go(project, environment)
    return go(project, environment, document=str(project.root / "docs" / "small.md"))


def test_it_goes_on_where_it_was_interrupted(first: Outcome) -> None:
    assert (first.computed, first.kept) == (STAGES - 7, 7)


def test_every_cell_is_there_and_the_one_that_fails_says_why(first: Outcome) -> None:
    assert [(mark.method, mark.seed) for mark in first.marks] == [
        (method, seed) for seed in (0, 1) for method in ("megu", "quick finetune", "too many")
    ]
    assert [mark.method for mark in first.failed] == ["too many", "too many"]
    for mark in first.failed:
        assert mark.error is not None
        assert mark.error.startswith("labeling: ")
        assert "\n" not in mark.error
    for mark in first.marks:
        if not mark.error:
            assert {"Ar", "Af", "MIA"} <= set(mark.unlearned)
            assert mark.peak_mib is not None
            assert mark.peak_mib > 50


def test_originals_and_retrains_are_shared_between_the_methods(first: Outcome) -> None:
    for seed in (0, 1):
        own = [mark for mark in first.marks if mark.seed == seed and not mark.error]
        assert len({mark.weights["original"] for mark in own}) == len({mark.weights["reference"] for mark in own}) == 1
        assert len({mark.weights["unlearned"] for mark in own}) == len(own)
    assert first.marks[0].weights["reference"] != first.marks[3].weights["reference"]


def test_the_limit_of_images_a_class_reaches_every_stage(project: Project, first: Outcome) -> None:
    from tasks.evaluation.condensed import CONDENSED
    from tasks.evaluation.predictions import PREDICTIONS
    from tasks.perturbing import PERTURBING
    from tasks.run.engine import cached_results
    from tasks.split import SPLIT

    for split in cached_results(project, SPLIT):
        assert (split.notes["forget"], split.notes["retain"]) == (60, 540)
    for answers in cached_results(project, PREDICTIONS):
        assert len(project.store.arrays(answers.files["predictions"])["train_logits"]) == 600
    for answers in cached_results(project, CONDENSED):
        assert len(project.store.arrays(answers.files["condensed"])["predicted"]) == 600
    assert len(cached_results(project, PERTURBING)) == 2


def test_the_table_has_the_floor_and_no_second_retrain(project: Project, first: Outcome) -> None:
    from tasks.run.engine import cached_results
    from tasks.unlearn import UNLEARN

    assert [row.method for row in first.rows] == ["original", "true retrain", "megu", "quick finetune", "too many"]
    one, other = (mark.reference for mark in first.marks if mark.method == "megu")
    floor = sum(abs(one[name] - other[name]) for name in ("Ar", "Af", "MIA")) / 3
    assert first.rows[1].values["gap"]["mean"] == pytest.approx(floor)
    assert {result.parts["method"] for result in cached_results(project, UNLEARN)} == {"megu", "finetune"}


def test_the_files_are_written(project: Project, first: Outcome) -> None:
    folder = project.root / "results" / "bench" / "small"
    assert sorted(path.name for path in folder.iterdir()) == [
        "cells.json", "gap-time.png", "retain-forget.png", "summary.csv", "table.csv", "table.md",
    ]  # fmt: skip
    assert len(json.loads((folder / "cells.json").read_text())) == 6
    with (folder / "table.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["megu"]["gap"]) == pytest.approx(first.rows[2].values["gap"]["mean"])
    assert rows["too many"]["failed"] == "2"
    page = (project.root / "docs" / "small.md").read_text()
    assert "$ megu bench small.yaml" in page
    assert "(small-gap-time.png)" in page
    assert (project.root / "docs" / "small-gap-time.png").read_bytes() == (folder / "gap-time.png").read_bytes()
    assert "too many, seed 1: labeling: " in page


def test_mlflow_has_a_child_for_each_cell_under_one_parent(project: Project, first: Outcome) -> None:
    from megu.tracking import client

    connected = client(project.home)
    parent = connected.get_run(first.mlflow_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["cells/failed"] == 2
    assert {"table.md", "table.csv", "cells.json", "gap-time.png"} <= {
        entry.path for entry in connected.list_artifacts(first.mlflow_run_id)
    }
    found = connected.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.mlflow_run_id}'")
    assert {run.info.run_id for run in found} == {mark.mlflow_run_id for mark in first.marks}
    for mark in first.marks:
        child = connected.get_run(mark.mlflow_run_id)
        assert child.info.status == ("FAILED" if mark.error else "FINISHED")
        assert child.data.params["seed"] == str(mark.seed)
        if mark.error:
            assert child.data.tags["error"] == mark.error
        else:
            assert child.data.metrics["comparison/gap"] == mark.comparison["gap"]
            assert child.data.metrics["cost/peak_mib"] == mark.peak_mib
            assert child.data.metrics.get("cost/pass_share") == mark.pass_share


def test_a_second_run_computes_nothing_and_says_the_same(
    project: Project, first: Outcome, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.bench import plan
    from megu.bench.config import load
    from megu.cli import main as cli

    _, kept, missing = plan(project, load(project.root / "small.yaml"))
    assert len(kept) == STAGES
    failing = {"labeling", "transition", "perturbing", "noise", "unlearn", "condensed", "evaluation"}
    assert {decision.stage.name for decision in missing.values()} == failing, "what failed and what waits for it"
    environment.setenv("MEGU_PROJECT", str(project.root))
    capsys.readouterr()
    # By the command line: a failed cell is exit code 1, and only JSON is on standard output.
    command = ["bench", str(project.root / "small.yaml"), "--json", "--out", str(project.root / "elsewhere")]
    with logged() as log:
        assert cli.guarded(lambda: cli.app(command, standalone_mode=False)) == 1
    assert [message.split(":")[:3] for level, message in log if level == "ERROR"] == [
        [f"Bag, too many, seed {seed}", " FAILED", " labeling"] for seed in (0, 1)
    ]
    said = json.loads(capsys.readouterr().out)
    assert said["stages"] == {"computed": 0, "kept": STAGES}
    assert said["failed"] == 2
    assert (project.root / "elsewhere" / "table.csv").read_bytes() == (
        project.root / "results" / "bench" / "small" / "table.csv"
    ).read_bytes()


def test_a_dask_cluster_gives_the_same_weights_and_the_same_marks(
    first: Outcome, environment: pytest.MonkeyPatch, tmp_path: Path, fashion_mnist: Dataset
) -> None:
    """Of one seed, in another process; every stage by itself, in two at once, is compared in tests/tasks/test_runners_bits.py."""
    other = made(tmp_path, fashion_mnist)
    found = go(other, environment, "runner.kind=dask", "runner.workers=1", "seeds=[0]")
    assert found.kept == 0
    before = [mark for mark in first.marks if mark.seed == 0]
    for name in ("method", "weights", "error", "original", "unlearned", "reference", "comparison"):
        assert [getattr(mark, name) for mark in found.marks] == [getattr(mark, name) for mark in before], name


def test_a_given_retrain_is_called_that_and_has_no_time_of_its_own(
    project: Project, first: Outcome, environment: pytest.MonkeyPatch
) -> None:
    """The retrain of the first seed from a file: nothing is trained for it, and the numbers are the same."""
    from tasks.reference import REFERENCE
    from tasks.run.engine import cached_results

    same = next(mark for mark in first.marks if (mark.method, mark.seed) == ("quick finetune", 0))
    kept = next(r for r in cached_results(project, REFERENCE) if r.values["weights_digest"] == same.weights["reference"])
    shutil.copyfile(project.store.checked(kept.files["weights"]), project.root / "retrain.safetensors")
    settings = ["seeds=[0]", "methods=[{name: quick, method: finetune, set: {unlearn.epochs: 1}}]", "name=given"]
    page = project.root / "docs" / "given.md"
    with logged() as log:
        outcome = go(project, environment, *settings, "reference.weights=retrain.safetensors", document=str(page))
    (mark,) = outcome.marks
    assert (mark.error, mark.reference, mark.comparison) == (None, same.reference, same.comparison)
    assert outcome.computed == 3, "the check of the retrain, its predictions, the evaluation"
    told = [message.partition(": ")[0] for level, message in log if level == "INFO"]
    assert [label for label in told if label in ("reference", "predict reference", "evaluation")] == [
        "reference", "predict reference", "evaluation",
    ]  # fmt: skip
    assert f"Bag, quick, seed 0: gap {mark.comparison['gap']:.2f}" in [message for _, message in log]
    assert [row.method for row in outcome.rows] == ["original", "given retrain", "quick"]
    assert not {"seconds", "time_share"} & set(outcome.rows[1].values)
    assert mark.time_share is None
    assert "that it never saw the forgotten images is its giver's word" in page.read_text()
    assert "true retrain" not in page.read_text()


def test_a_benchmark_for_single_samples_names_none_of_them_anywhere(
    project: Project, first: Outcome, environment: pytest.MonkeyPatch
) -> None:
    """Everything is grepped: MLflow, Prefect, results and pages; the ids are in the data set and a file of the owner's."""
    from prefect.client.orchestration import get_client

    chosen = [value.decode() for value in arrays.load(project.data("slice")).train.ids[:2]]
    target = f"targets=[{{scenario: ids, ids: [{', '.join(chosen)}]}}]"
    page = project.root / "docs" / "ids.md"
    with logged() as log:
        outcome = go(project, environment, target, "seeds=[0]", "methods=[finetune]", "name=ids", document=str(page))
    assert [mark.error for mark in outcome.marks] == [None]
    assert any(message.startswith("unlearn: ") for _, message in log)
    assert [message for _, message in log for one in chosen if one in message] == []
    held = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file() and "data" not in path.parts}
    told = {
        path.relative_to(project.root).parts[:2] for path, content in held.items() for one in chosen if one.encode() in content
    }
    assert told - {(".megu", "store")} == {(".megu", "private")}, (
        "in the store are the ids of a labeler's exemplars, whoever they are"
    )
    assert "targets=…" in page.read_text()
    assert "2 images" in page.read_text()
    with get_client(sync_client=True) as client:
        shown = json.dumps([run.parameters for run in client.read_flow_runs()])
    assert [one for one in chosen if one in shown] == []
    assert "/private/" in shown
