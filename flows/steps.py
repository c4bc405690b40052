"""Steps that more than one flow takes."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger

from megu import addresses, git
from megu.config import Config
from megu.progress import stages
from megu.project import Project
from megu.stages import Device
from megu.tracking import creation
from megu.writable import refuse_unwritable
from tasks import inputs, labeler
from tasks.dataset import DATASET
from tasks.engine import Run
from tasks.labeling import LABELING
from tasks.ollama import OLLAMA
from tasks.original import GIVEN, TRAINED
from tasks.predictions import PREDICTIONS


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
    return run(DATASET, name=config.data.name, per_class=config.data.per_class, pin=inputs.pin(project, config))


def original(run: Run, project: Project, config: Config, data: Any) -> tuple[Any, Any]:
    """The model that is to forget, and what it answers."""
    seed, device = config.seed, Device.of(config.device, config.deterministic)
    given = inputs.given_weights(project, config)
    if given is None:
        model = run(TRAINED, data=data, params=config.train, seed=seed, device=device)
    else:
        model = run(GIVEN, label="original", data=data, weights=given, params=config.train)
    return model, run(PREDICTIONS, label="predict original", data=data, model=model, device=device)


def judge(run: Run, project: Project, config: Config, data: Any) -> Any:
    """The judgement by the labeler that is asked for, never by another."""
    if config.labeling.kind == "ollama":
        params = config.labeling.params
        return run(OLLAMA, label="labeling", data=data, **labeler.arguments(project, params, labeler.known(project, params)))
    return run(LABELING, data=data, params=config.labeling.params)
