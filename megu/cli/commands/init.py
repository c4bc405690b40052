"""``megu init``: a project in a new folder or in an existing repository."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from megu.core.errors import MeguError

if TYPE_CHECKING:
    from collections.abc import Sequence


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def init(
        folder: Annotated[
            Path | None,
            typer.Argument(metavar="[DIR]", help="The project's folder, created if needed (default: the current one)."),
        ] = None,
        data: Annotated[
            str | None, typer.Option("--data", metavar="NAME", help="A data set that can be fetched by name or is in data/.")
        ] = None,
        model: Annotated[
            str | None,
            typer.Option(
                "--model", metavar="NAME", help="An architecture: one that `megu models` lists, or package.module:function."
            ),
        ] = None,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the defaults.")] = False,
    ) -> None:
        """Create a project: configuration, DVC stage, Prefect deployments, ignored files. Changes no existing file's content."""
        root = (folder or Path.cwd()).absolute()
        from megu.scaffold import choices, plan

        new = plan.chosen(root) is None
        if new and not yes and not (data and model):
            from megu import models

            data = data or _asked("Data set", choices.data_sets(root), "--data")
            choices.check_data_set(root, data)
            model = model or _asked("Model", models.names(), "--model")
        changes = plan.changes(root, data, model, "megu.flows" if find_spec("megu.flows") else "flows")
        plan.apply(root, changes)
        for change in changes:
            print(f"{change.name}: {change.said}")
        there = os.path.relpath(root)
        print(f"{'ready' if changes else 'nothing to add'}; next: {f'cd {quote(there)} && ' if there != '.' else ''}megu run")


def _asked(what: str, known: Sequence[str], option: str) -> str:
    """Return what a person chooses; the first of the known values unless they type something else."""
    if not sys.stdin.isatty():
        raise MeguError(
            "megu init asks for a data set and a model, and nobody is there to answer", f"use --yes, or {option} NAME"
        )
    return str(typer.prompt(f"{what} ({', '.join(known)})", default=known[0], err=True))
