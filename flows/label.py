"""The labeling flow: a labeler's similarity scores for a data set, computed and cached independently of any request.

Every later run with the same inputs finds them and queries nothing. Run it as ``megu label``, as ``python -m flows.label [params.yaml
[section.key=value …]]``, or as a Prefect deployment.
"""

from __future__ import annotations

import sys
from typing import Any

from prefect import flow

from flows.pipeline import DATA, JUDGEMENT, ORIGINAL
from megu.config import tree as configuration
from megu.config.tree import Config, LabelingParams
from megu.core.files.exclusion import while_no_purge
from megu.core.project import Project, find
from megu.labeling.prototype import PrototypeParams
from tasks.prefect import flow_runs, run_names
from tasks.prefect.slots import gpu
from tasks.records import show
from tasks.run import inputs
from tasks.run.engine import Decision, Executor, Planner
from tasks.run.pipeline import walk
from tasks.run.running import as_program, ours

STEPS = (DATA, *JUDGEMENT)


@flow(
    name="label",
    flow_run_name=run_names.label,
    description="Score how similar the concepts of a data set look, once for all later requests.",
)
@while_no_purge
@ours
def label(params: str = "params.yaml", settings: list[str] | None = None, prototype: bool = False) -> dict[str, Any]:
    """Compute the similarity scores, or find them in the cache.

    params: the configuration file, relative to the project. settings: changes to it, each "section.key=value". prototype: use
    the prototype labeler, with its defaults, whatever the configuration says: for comparison.
    """
    project = find()
    params, settings = flow_runs.redact_call(project, params, settings)
    config = configuration.load(project.root / params, settings)
    config = by_prototype(config) if prototype else config
    inputs.labeler_ready(project, config)
    run = Executor(project)
    with gpu(config.device):
        walk(run, project, config, STEPS)
    made = run["labeling"]
    return {
        "data": config.data.name,
        "kind": config.labeling.kind,
        "labeler": dict(made.result.values["labeler"]),
        "cache": "hit" if made.decision.hit else "miss",
        "asked": 0 if made.decision.hit else made.result.notes.get("asked_now", 0),
        "seconds": round(made.seconds, 3),
        "record": made.result.notes.get("record", {}),
    }


def plan(project: Project, config: Config) -> list[Decision]:
    """Return what `label` would do. Computes and queries nothing."""
    planner = Planner(project)
    walk(planner, project, config, STEPS)
    return planner.decisions


def inspect_labeling(project: Project, config: Config, params: str, settings: list[str]) -> show.Shown:
    """Show the cached similarity scores beside what they should agree with. The prototype labeler computes its own now if it never
    has; no model is queried."""
    planner = Planner(project)
    made = walk(planner, project, config, (*STEPS, *ORIGINAL))
    judged, compared = show.cached_or_refused(made["labeling"], config), None
    if config.labeling.kind != "prototype":
        other = by_prototype(config)
        compared = walk(planner, project, other, STEPS)["labeling"]
        if not planner.decisions[-1].hit:
            label(params=params, settings=settings, prototype=True)
            compared = walk(planner, project, other, STEPS)["labeling"]
    return show.shown(project, made["data"], judged, made["before"], compared)


def by_prototype(config: Config) -> Config:
    """Return the same configuration with the prototype labeler and its defaults."""
    return config.model_copy(update={"labeling": LabelingParams("prototype", PrototypeParams())})


if __name__ == "__main__":
    as_program(lambda: label(params=(sys.argv[1:2] or ["params.yaml"])[0], settings=sys.argv[2:]))
