"""Steps that more than one flow takes."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from megu.config.tree import Config
from megu.core.files.writable import refuse_unwritable
from megu.core.processes import git
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Device, Result
from megu.servers import addresses
from megu.servers import databases as creation
from tasks import labeler
from tasks.dataset import DATASET
from tasks.evaluation.predictions import PREDICTIONS
from tasks.labeling import APART, LABELING
from tasks.ollama import OLLAMA, OLLAMA_APART
from tasks.original import GIVEN, TRAINED
from tasks.reference import GIVEN_REFERENCE
from tasks.run import inputs
from tasks.run.engine import Planner, Run


def refuse_unusable_tracking(project: Project) -> None:
    """Raise `MeguError`, before anything is computed, where runs could not be recorded: MLflow's server or database, or the disk."""
    refuse_unwritable(project.root, project.home)
    addresses.refuse_mlflow()
    creation.refuse_unusable_mlflow(project.home)


def say_without_commit(project: Project) -> None:
    """Where git gives no commit to record, say so and why, to the terminal and to Prefect; inside a flow run."""
    if warning := git.checkout(project.root).warning:
        stages().note(warning)
        get_run_logger().warning(warning)


def dataset(run: Run, project: Project, config: Config) -> Any:
    return run(DATASET, **inputs.dataset(project, config))


def original(run: Run, project: Project, config: Config, data: Any) -> tuple[Any, Any]:
    """The model that is to forget, and what it answers."""
    seed, device = config.seed, Device.of(config.device, config.deterministic)
    given = inputs.given_weights(project, config, "original")
    if given is None:
        model = run(TRAINED, data=data, params=config.train, seed=seed, device=device)
    else:
        model = run(GIVEN, label="original", data=data, weights=given, params=config.train)
    return model, run(PREDICTIONS, label="predict original", data=data, model=model, device=device)


def given_reference(run: Run, project: Project, config: Config, data: Any, split: Any, original: Any) -> Any | None:
    """The retrain that is given; None where it is to be trained here, or there is none.

    Raises `MeguError` where it is the original, as soon as that is known.
    """
    given = inputs.given_weights(project, config, "reference")
    if given is None:
        return None
    found = run(GIVEN_REFERENCE, label="reference", data=data, split=split, weights=given, params=config.train)
    inputs.not_the_original(config, _digest(original), _digest(found))
    return found


def refuse_kept_original(project: Project, config: Config) -> None:
    """Raise `MeguError` for a given retrain that is the original, where that is kept; computes nothing."""
    if config.reference.given:
        planner = Planner(project)
        kept, _ = original(planner, project, config, dataset(planner, project, config))
        inputs.not_the_original(config, _digest(kept), inputs.usable(project, config, "reference"))


def _digest(model: Any) -> str | None:
    """Of a model's weights; None of one that is not there yet."""
    return model.values.get("weights_digest") if isinstance(model, Result) else None


def judge(run: Run, project: Project, config: Config, data: Any) -> Any:
    """The judgement by the labeler that is asked for, never by another."""
    if config.labeling.kind == "ollama":
        params = config.labeling.params
        return run(OLLAMA, label="labeling", data=data, **labeler.arguments(project, params, labeler.known(project, params)))
    device = Device.of(config.device, config.deterministic)
    return run(LABELING, data=data, params=config.labeling.params, device=device)


def judge_apart(run: Run, project: Project, config: Config, data: Any) -> Any | None:
    """What the same labeler says of the sub-classes that are to be forgotten, beside the classes without them; None where there are none."""
    apart = inputs.subclasses(config)
    if not apart:
        return None
    if config.labeling.kind == "ollama":
        params = config.labeling.params
        known = labeler.arguments(project, params, labeler.known(project, params))
        return run(OLLAMA_APART, label="labeling apart", data=data, apart=apart, **known)
    device = Device.of(config.device, config.deterministic)
    return run(APART, label="labeling apart", data=data, params=config.labeling.params, apart=apart, device=device)
