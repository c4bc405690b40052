"""The unlearning flow: a request in, an unlearned model and its evidence out.

`select` and `pipeline` are wiring and nothing else; the thinking is in `megu`, the running in `tasks`. Run it as ``megu run``, as
``python -m flows.unlearn [params.yaml [section.key=value …]]``, or as a Prefect deployment (``prefect deploy``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow

from flows import steps
from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.files.exclusion import while_no_purge
from megu.core.project import Project, find
from megu.core.stages import Device
from megu.evaluation.summary import Rung, Summary
from megu.promotion import moves as promotion
from megu.promotion.params import RETRAIN
from megu.tracking import closing, warm_up
from megu.tracking.environment import environment
from megu.unlearning.labels.replacing import OVERLAP
from tasks.dataset import DUPLICATES
from tasks.entanglement import ENTANGLEMENT
from tasks.evaluation.condensed import CONDENSED
from tasks.evaluation.deep import DEEP
from tasks.evaluation.figures import FIGURES
from tasks.evaluation.marks import EVALUATION
from tasks.evaluation.relearn import RELEARN
from tasks.evaluation.shadow import SHADOW
from tasks.noise import NOISE
from tasks.perturbing import PERTURBING
from tasks.prefect import flow_runs, run_names
from tasks.prefect.slots import gpu
from tasks.records import ladder, record
from tasks.reference import REFERENCE
from tasks.run import inputs
from tasks.run.engine import Decision, Executor, Planner, Run
from tasks.run.running import as_program, ours
from tasks.split import SPLIT
from tasks.transition import TRANSITION
from tasks.unlearn import EXACT, UNLEARN


@dataclass(frozen=True)
class Selected:
    """What is forgotten of what. config: with the copies that the request includes. duplicates: the data set's, None where none is included."""

    config: Config
    data: Any
    split: Any
    duplicates: Any | None


def select(run: Run, project: Project, config: Config) -> Selected:
    """The data set and the forget split."""
    data = steps.dataset(run, project, config)
    duplicates = run(DUPLICATES, data=data) if config.forget.near_duplicates == "include" else None
    split = run(
        SPLIT,
        data=data,
        forget=config.forget,
        seed=config.seed,
        through_dvc=inputs.through_dvc(project, config),
        duplicates=duplicates,
    )
    return Selected(inputs.widened(project, config, data, duplicates), data, split, duplicates)


@dataclass(frozen=True)
class Outputs:
    """The results of the pipeline that something else is made of; None for what the method does not need."""

    before: Any
    entanglement: Any
    labeling: Any | None
    transition: Any | None
    perturbing: Any | None
    noise: Any | None
    unlearned: Any
    evaluation: Any


def pipeline(run: Run, project: Project, config: Config, data: Any, split: Any) -> Outputs:
    """Every other stage in order. With a `Planner` as ``run`` nothing is computed."""
    seed, device = config.seed, Device.of(config.device, config.deterministic)
    original, before = steps.original(run, project, config, data)
    given = steps.given_reference(run, project, config, data, split, original)

    entanglement = run(ENTANGLEMENT, data=data, split=split, predictions=before)
    needs = inputs.needs(config)
    labeling = transition = perturbing = noise = None
    if "perturbing" in needs:
        labeling = steps.judge(run, project, config, data)
        transition = run(TRANSITION, labeling=labeling)
        perturbing = run(
            PERTURBING,
            data=data,
            split=split,
            predictions=before,
            transition=transition,
            labeling_apart=steps.judge_apart(run, project, config, data),
            entanglement=entanglement if config.perturbing.matrix == OVERLAP else None,
            params=config.perturbing,
            calibration=config.calibration,
            seed=seed,
        )
    if "noise" in needs:
        noise = run(
            NOISE,
            data=data,
            split=split,
            original=original,
            perturbing=perturbing,
            params=config.noise,
            seed=seed,
            device=device,
        )

    def retrain(number: int) -> Any:
        label = f"reference{_which(config, number)}"
        return run(REFERENCE, label=label, data=data, split=split, params=config.train, seed=seed + number, device=device)

    if config.unlearn.method == RETRAIN and config.reference.enabled and given is None:
        exact = retrain(0)
        unlearned = run(EXACT, retrained=exact, method=config.unlearn.method, params=config.unlearn.params)
    else:
        exact = None
        unlearned = run(
            UNLEARN,
            data=data,
            split=split,
            original=original,
            perturbing=perturbing,
            noise=noise,
            recipe=config.train if "train_recipe" in needs else None,
            method=config.unlearn.method,
            params=config.unlearn.params,
            code=inputs.method_code(config),
            seed=seed,
            device=device,
        )
    after = run(CONDENSED, label="predict unlearned", data=data, split=split, model=unlearned, device=device)

    checked = config.evaluation

    relearned: list[Any] = []
    deeper: list[Any] = []

    def train_further(model: Any, which: str) -> None:
        """What is measured by training a model further, where it is asked for."""
        common = {"data": data, "split": split, "model": model, "seed": checked.seed, "device": device}
        if checked.relearn:
            relearned.append(run(RELEARN, label=f"relearn {which}", original=original, params=checked.relearning, **common))
        if checked.deep:
            deeper.append(run(DEEP, label=f"deep {which}", params=checked.checks, calibration=config.calibration, **common))

    train_further(unlearned, "unlearned")
    retrained = []
    for number in range(config.reference.repeats if config.reference.enabled else 0):
        which = _which(config, number)
        again = given or (exact if number == 0 and exact is not None else retrain(number))
        retrained.append(run(CONDENSED, label=f"predict reference{which}", data=data, split=split, model=again, device=device))
        train_further(again, f"reference{which}")
    shadows = [
        run(
            SHADOW,
            label=f"shadow {number + 1}",
            data=data,
            params=config.train,
            seed=checked.seed,
            number=number,
            device=device,
        )
        for number in range(checked.shadows)
    ]

    evaluation = run(
        EVALUATION,
        data=data,
        split=split,
        before=before,
        after=after,
        retrained=retrained,
        shadows=shadows,
        relearned=relearned,
        deeper=deeper,
        given=given,
        calibration=config.calibration,
        code=inputs.metrics_code(),
    )
    return Outputs(before, entanglement, labeling, transition, perturbing, noise, unlearned, evaluation)


def _which(config: Config, number: int) -> str:
    """What the labels of a retrain end with."""
    return f" {number + 1}" if config.reference.repeats > 1 else ""


def illustrate(run: Run, selected: Selected, outputs: Outputs) -> Any:
    """The figures of the report."""
    config, data = selected.config, selected.data
    return run(
        FIGURES,
        data=data,
        split=selected.split,
        duplicates=selected.duplicates or run(DUPLICATES, data=data),
        before=outputs.before,
        entanglement=outputs.entanglement,
        transition=outputs.transition,
        perturbing=outputs.perturbing,
        noise=outputs.noise,
        evaluation=outputs.evaluation,
        method=config.unlearn.method,
        params=config.unlearn.params,
    )


@flow(
    name="unlearn",
    flow_run_name=run_names.forget,
    description="Forget what params.yaml asks for; compare with a true retrain; record, report, register.",
)
@while_no_purge
@ours
def unlearn(params: str = "params.yaml", settings: list[str] | None = None) -> Summary:
    """Run the pipeline.

    params: the configuration file, relative to the project. settings: changes to it, each "section.key=value".
    """
    project = find()
    steps.refuse_unusable_tracking(project)
    params, settings = flow_runs.private(project, params, settings)
    config = configuration.load(project.root / params, settings)
    if config.promotion.ladder.when == "always":
        climb = ladder.climb(project, config, {}, carry_out)
        ladder.end(project, climb)
        return climb.summary
    return carry_out(project, config)


def carry_out(
    project: Project, config: Config, tags: Mapping[str, str] | None = None, before: Sequence[Rung] | None = None
) -> Summary:
    """Run the pipeline for a configuration, inside a flow run, once there is a place on the device.

    tags: more of them for the MLflow run and the model version. before: the rungs before it, where it is one of a ladder.
    """
    with gpu(config.device):
        return _carry_out(project, config, tags, before)


def _carry_out(project: Project, config: Config, tags: Mapping[str, str] | None, before: Sequence[Rung] | None) -> Summary:
    started = time.perf_counter()
    inputs.preflight(project, config)
    promotion.settle(project)
    steps.say_without_commit(project)
    run = Executor(project, origin=environment(project.root))
    selected = select(run, project, config)
    config, data = selected.config, selected.data
    steps.refuse_kept_original(project, config)
    # Only now: a request for a class that the data set does not have leaves no MLflow run behind.
    with closing(record.begin(project, config, tags)) as tracked:
        run.origin["mlflow_run_id"] = tracked.id
        outputs = pipeline(run, project, config, data, selected.split)
        illustrate(run, selected, outputs)
        version = (
            record.register(project, config, tracked, data, outputs.labeling, outputs.unlearned, tags)
            if config.registry.enabled
            else None
        )
        summary = replace(record.summarise(config, run, tracked, project), model_version=version)
        summary = replace(summary, flow_seconds=time.perf_counter() - started)
        if before is not None:
            summary = replace(summary, ladder=[*before, ladder.rung(config, run, summary, len(before) + 1)])
        summary = record.publish(project, config, tracked, run, summary)
    return replace(summary, flow_seconds=time.perf_counter() - started)


def plan(project: Project, config: Config) -> list[Decision]:
    """What a run would do: hit or miss for every stage, and why. Computes nothing, and needs no labeler's server."""
    inputs.given(project, config)
    steps.refuse_kept_original(project, config)
    planner = Planner(project)
    selected = select(planner, project, config)
    illustrate(planner, selected, pipeline(planner, project, selected.config, selected.data, selected.split))
    return planner.decisions


if __name__ == "__main__":
    as_program(lambda: unlearn(params=(sys.argv[1:2] or ["params.yaml"])[0], settings=sys.argv[2:]), warm_up)
