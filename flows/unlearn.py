"""The unlearning flow: a request in, an unlearned model and its evidence out.

The stages are a table (`flows.pipeline`), the logic is in `megu`, running the stages is in `tasks`. Run it as ``megu run``, as
``python -m flows.unlearn [params.yaml [section.key=value …]]``, or as a Prefect deployment (``prefect deploy``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prefect import flow

from flows import steps
from flows.pipeline import PIPELINE, REPORT, REQUEST
from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.files.exclusion import while_no_purge
from megu.core.project import Project, find
from megu.evaluation.summary import Rung, Summary
from megu.promotion import moves as promotion
from megu.tracking import closing, warm_up
from megu.tracking.environment import environment
from tasks.prefect import flow_runs, run_names
from tasks.prefect.slots import gpu
from tasks.records import ladder, record
from tasks.run import inputs
from tasks.run.engine import Decision, Executor, Planner, Run
from tasks.run.pipeline import Results, walk
from tasks.run.running import as_program, ours


@dataclass(frozen=True)
class Selected:
    """What is forgotten, and from which data set. config: with the copies that the request includes. made: the results of the
    request's rows."""

    config: Config
    made: Results


def select(run: Run, project: Project, config: Config) -> Selected:
    """Run the data set and the forget split."""
    made = walk(run, project, config, REQUEST)
    return Selected(inputs.widened(project, config, made["data"], made["duplicates"]), made)


def pipeline(run: Run, project: Project, selected: Selected) -> Results:
    """Run what follows from them, up to the evaluation. With a `Planner` as ``run`` nothing is computed."""
    return walk(run, project, selected.config, PIPELINE, selected.made)


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
    params, settings = flow_runs.redact_call(project, params, settings)
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

    tags: further ones for the MLflow run and the model version. before: the previous rungs, if this is a rung of a ladder.
    """
    with gpu(config.device):
        return _carry_out(project, config, tags, before)


def _carry_out(project: Project, config: Config, tags: Mapping[str, str] | None, before: Sequence[Rung] | None) -> Summary:
    started = time.perf_counter()
    inputs.preflight(project, config)
    promotion.reconcile(project)
    steps.say_without_commit(project)
    run = Executor(project, origin=environment(project.root))
    selected = select(run, project, config)
    config = selected.config
    steps.refuse_cached_original(project, config)
    # Only now: a request for a class that the data set does not have leaves no MLflow run behind.
    with closing(record.begin(project, config, tags)) as tracked:
        run.origin["mlflow_run_id"] = tracked.id
        made = walk(run, project, config, REPORT, pipeline(run, project, selected))
        version = (
            record.register(project, config, tracked, made["data"], made["labeling"], made["unlearned"], tags)
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
    """Return what a run would do: hit or miss for every stage, and why. Computes nothing, and needs no labeler's server."""
    inputs.check_provided(project, config)
    steps.refuse_cached_original(project, config)
    planner = Planner(project)
    selected = select(planner, project, config)
    walk(planner, project, selected.config, REPORT, pipeline(planner, project, selected))
    return planner.decisions


if __name__ == "__main__":
    as_program(lambda: unlearn(params=(sys.argv[1:2] or ["params.yaml"])[0], settings=sys.argv[2:]), warm_up)
