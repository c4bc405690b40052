"""Checks that several flows make before they begin."""

from __future__ import annotations

from prefect import get_run_logger

from flows.pipeline import DATA, ORIGINAL
from megu.config.tree import Config
from megu.core.files.writable import refuse_unwritable
from megu.core.processes import git
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Result
from megu.servers import addresses
from megu.servers import databases as creation
from tasks.run import inputs
from tasks.run.engine import Planner
from tasks.run.pipeline import walk


def refuse_unusable_tracking(project: Project) -> None:
    """Raise `MeguError`, before anything is computed, if runs could not be recorded: because of MLflow's server or database, or the
    disk."""
    refuse_unwritable(project.root, project.home)
    addresses.refuse_mlflow()
    creation.refuse_unusable_mlflow(project.home)


def say_without_commit(project: Project) -> None:
    """If git gives no commit to record, report it with the reason, to the terminal and to Prefect; inside a flow run."""
    if warning := git.checkout(project.root).warning:
        stages().note(warning)
        get_run_logger().warning(warning)


def refuse_cached_original(project: Project, config: Config) -> None:
    """Raise `MeguError` for a provided retrain that is the original, if that is cached; computes nothing."""
    if config.reference.provided:
        kept = walk(Planner(project), project, config, (DATA, *ORIGINAL))["original"]
        digest = kept.values["weights_digest"] if isinstance(kept, Result) else None
        inputs.not_the_original(config, digest, inputs.usable(project, config, "reference"))
