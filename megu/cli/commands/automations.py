"""``megu automations create``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from megu.cli.common import find_project


def register(app: typer.Typer) -> None:
    """Add the command."""
    automations = typer.Typer(help="Prefect automations for what needs a person and for dead runs.", no_args_is_help=True)
    app.add_typer(automations, name="automations")

    @automations.callback()
    def _group() -> None:
        pass

    @automations.command()
    def create(
        file: Annotated[
            Path | None, typer.Option("--file", metavar="FILE", help="Default: the automations that come with megu.")
        ] = None,
        notify: Annotated[
            str | None, typer.Option("--notify", metavar="BLOCK", help="A notification block, such as slack-webhook/team.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Create the automations on the current Prefect server, or bring them up to date; never creates one twice."""
        find_project()
        from tasks.prefect import automations

        made = automations.create(file or automations.FILE, notify)
        if as_json:
            return print(json.dumps({"automations": [{"name": entry.name, "done": entry.done} for entry in made]}, indent=2))
        for entry in made:
            print(f"{entry.name}: {entry.done}")
        return None
