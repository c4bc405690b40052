"""What several commands share: options, the current project, its configuration, and the console."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu.core import project
from megu.core.errors import MeguError
from megu.core.files.writable import refuse_unwritable
from megu.servers.environment import prepare_environment

if TYPE_CHECKING:
    from rich.console import Console

    from megu.core.project import Project

ParamsOption = Annotated[
    Path | None, typer.Option("--params", metavar="FILE", help="Configuration file (default: the project's params.yaml).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one value for this run, e.g. unlearn.alpha=0.6 or forget.classes='[Bag]'. Repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print only the summary.")]


def find_project() -> Project:
    here = project.find()
    # Prefect's log goes to its server; the watcher reports progress on the console instead.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    prepare_environment(here)
    return here


def writable_project() -> Project:
    """Return the project for a command that writes; refuse, before anything is computed, if it cannot be written."""
    here = find_project()
    refuse_unwritable(here.root, here.home)
    return here


def project_if_any() -> Project | None:
    """Return the project, or None outside of one: a dossier can be inspected anywhere."""
    try:
        return find_project()
    except MeguError:
        return None


def ready_project() -> Project:
    here = find_project()
    ready(here)
    return here


def read_config(here: Project, params: Path | None, settings: list[str] | None) -> Any:
    from megu.config import tree as config

    return config.load(params or here.params, settings or ())


def ready(here: Project, *, tracked: bool = True) -> None:
    from megu.servers.ready import refuse_unusable

    refuse_unusable(here, tracked=tracked)


def starting(here: Project, watcher: Any, what: str = "Prefect and MLflow") -> None:
    """Before a flow: create the database of Prefect's temporary server here, whole or not at all."""
    watcher.note(f"starting {what} …")
    from megu.servers import databases as creation

    creation.ensure_own_prefect(here.home / "prefect")


def console() -> Console:
    """Return the console for progress and messages: standard error, so that standard output contains only results."""
    from rich.console import Console

    return Console(stderr=True)


def watching(show: bool = True) -> Any:
    from megu.cli.terminal import Watcher

    return Watcher(console(), show=show)
