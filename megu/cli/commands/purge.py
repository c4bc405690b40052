"""``megu purge``: the command line of `megu.erasure.run`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from megu.cli.common import JsonOption, ParamsOption, find_project, writable_project
from megu.core.escaping import plain

if TYPE_CHECKING:
    from megu.erasure.run import Outcome


def purge(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="The runs whose requests to fulfil: MLflow run ids or models:/name/version (default: all that forgot what they should).",
        ),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Erase. Without this nothing is changed.")] = False,
    params: ParamsOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value, e.g. purge.models_days=0. Repeatable."),
    ] = None,
    ignored: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-run",
            metavar="RUN",
            help="A dead run that MLflow still shows as running; the signed document names it. Repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what was forgotten from every store: show what is removed, what stays and until when; with --apply do it and sign the
    verdict.

    Exit code 0, or 1 when the purge could not remove something (RESIDUAL).
    """
    here = writable_project() if apply else find_project()
    from megu.config import tree as config
    from megu.erasure import run
    from megu.lineage.purged.document import RESIDUAL

    loaded = config.load(params or here.params, settings or ())
    if apply:
        key = here.root / loaded.lineage.key if loaded.lineage.key else None
        outcome = run.apply(here, runs or [], loaded.purge, key, ignored or [])
    else:
        outcome = run.dry_run(here, runs or [], loaded.purge)
    if as_json:
        print(json.dumps(outcome.to_json(), indent=2))
    else:
        _say(outcome)
    if any(surface.verdict == RESIDUAL for surface in outcome.surfaces):
        raise typer.Exit(1)


def _say(outcome: Outcome) -> None:
    if outcome.resumed and outcome.sealed is None:
        print("a purge was stopped half-way; this is its plan, and `megu purge --apply` continues it")
    elif outcome.resumed:
        print("continued a purge that was stopped")
    print(f"for {', '.join(f'{plain(run.request)} (run {run.mlflow_run_id})' for run in outcome.plan.covers)}")
    width = max(len(surface.name) for surface in outcome.surfaces)
    for surface in outcome.surfaces:
        print(f"{surface.verdict:<8}  {surface.name:<{width}}  {surface.says}")
    if outcome.sealed is None:
        for action in outcome.plan.actions:
            print(f"would erase  {plain(action.what)}: {plain(action.why)}")
        todo = "`megu purge --apply` erases it" if outcome.plan.actions else "there is nothing to erase"
        print(f"nothing was changed; {todo}")
    else:
        looked = outcome.sealed.purge.looked
        print(
            f"searched again for {looked['samples']:,} samples in {looked['files']:,} files ({looked['bytes'] / 1e6:,.0f} MB)"
        )
        print(f"purge {outcome.sealed.seal}, signed; if a data set has changed, so has data.dvc: commit it")
