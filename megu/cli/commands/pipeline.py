"""``megu run``, ``label``, ``explain`` and ``bench``, and what they can be told: ``params``, ``methods`` and ``models``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu.cli.common import (
    JsonOption,
    ParamsOption,
    QuietOption,
    SetOption,
    console,
    find_project,
    read_config,
    ready,
    starting,
)

if TYPE_CHECKING:
    from megu.core.project import Project


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(label)
    app.command()(explain)
    app.command()(bench)
    app.command("params")(show_params)
    app.command("methods")(list_methods)
    app.command("models")(list_models)


def run(
    params: ParamsOption = None,
    settings: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run and what is cached, and do nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the unlearning pipeline: cached stages are reused, the rest is computed, and everything is recorded."""
    here = find_project()
    config = read_config(here, params, settings)
    if dry_run:
        return _print_plan(here, config, as_json)
    ready(here)
    _preflight(here, config)
    from megu.cli.terminal import Watcher, print_summary

    watcher = Watcher(console(), show=not (quiet or as_json))
    starting(here, watcher)
    from flows.unlearn import unlearn
    from megu.config.redaction import redact_settings
    from megu.tracking import warm_up
    from tasks.run.running import from_terminal

    named, changes = redact_settings(here, params.resolve() if params else here.params, settings or ())
    with from_terminal(warm_up), watcher:
        summary = unlearn(params=str(named), settings=changes)
    if as_json:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        print_summary(summary)
    return None


def label(
    params: ParamsOption = None,
    settings: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the largest number of questions and the time they would take, and ask none."),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show", help="Draw the cached similarity scores into results/, with what they agree with, and print them."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Have a labeler score the similarity of the classes, once for all later requests. It can be interrupted and resumed."""
    here = find_project()
    config = read_config(here, params, settings)
    if dry_run:
        return _print_label_plan(here, config, as_json)
    ready(here, tracked=False)
    from megu.cli.terminal import Watcher, print_labeling, print_shown

    watcher = Watcher(console(), show=not (quiet or as_json))
    from megu.config.redaction import redact_settings

    private, changes = redact_settings(here, params.resolve() if params else here.params, settings or ())
    named = str(private)
    if show:
        starting(here, watcher, "Prefect")
        from flows.label import inspect_labeling
        from tasks.run.running import from_terminal

        with from_terminal(), watcher:
            shown = inspect_labeling(here, config, named, changes)
        return print_shown(shown, as_json=as_json)
    from tasks.run.inputs import labeler_ready

    labeler_ready(here, config)
    starting(here, watcher, "Prefect")
    from flows.label import label as flow
    from tasks.run.running import from_terminal

    with from_terminal(), watcher:
        made = flow(params=named, settings=changes)
    return print_labeling(made, as_json=as_json)


def explain(params: ParamsOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Say for each stage whether its cached result would be used, and why or why not."""
    here = find_project()
    _print_plan(here, read_config(here, params, settings), as_json)


def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The benchmark, e.g. bench/smoke.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value: the benchmark's own (seeds=[0], runner.kind=dask) or, of every run, one as in params.yaml "
            "(train.epochs=3). Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print how many runs there are and how many stages are cached or would run, and do nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the results (default: results/bench/<name>).")
    ] = None,
    document: Annotated[
        Path | None,
        typer.Option("--document", metavar="FILE.md", help="Also write the page to this file, with its figures beside it."),
    ] = None,
) -> None:
    """Compare methods on targets over seeds with the true retrain, in one table; exit code 1 when a run failed."""
    here = find_project()
    from megu.bench import config
    from megu.cli.terminal import Watcher, print_bench, print_bench_plan

    loaded = config.load(file, settings or ())
    watcher = Watcher(console(), show=not (quiet or as_json))
    if dry_run:
        watcher.note("looking into the cache …")
    else:
        ready(here)
        starting(here, watcher)
    from flows import bench as flow

    if dry_run:
        return print_bench_plan(*flow.plan(here, loaded), as_json=as_json)
    from megu.tracking import warm_up
    from tasks.run.running import from_terminal

    with from_terminal(warm_up), watcher:
        outcome = flow.run(file, settings or [], str(out) if out else None, str(document) if document else None)
    print_bench(outcome, as_json=as_json)
    if outcome.failed:
        raise typer.Exit(1)
    return None


def show_params(params: ParamsOption = None, settings: SetOption = None) -> None:
    """Print the whole configuration, every default included, as YAML."""
    import yaml

    print(yaml.safe_dump(read_config(find_project(), params, settings).to_json(), sort_keys=False), end="")


def list_methods(as_json: JsonOption = False) -> None:
    """List the unlearning methods, those of installed plugins too: what each does, needs and costs, and its parameters."""
    from megu.cli.terminal import print_methods
    from megu.unlearning.methods import METHODS, REGISTRY, described

    found, problems = REGISTRY.usable()
    print_methods([described(name, method) for name, method in {**METHODS, **found}.items()], as_json=as_json)
    for problem in problems:
        print(f"megu: {' '.join(problem.split())}", file=sys.stderr)


def list_models(params: ParamsOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """List the architectures, with the number of weights that each has for the data set at hand."""
    from megu.data import arrays
    from megu.models import listing

    here = find_project()
    name = read_config(here, params, settings).data.name
    classes, channels, size = 10, 3, (32, 32)
    if (here.data(name) / "meta.json").is_file():
        dataset = arrays.load(here.data(name))
        classes, channels, size = dataset.num_classes, dataset.channels, dataset.image_size
    else:
        name = ""
    rows = listing(classes, channels, size)
    shape = {"classes": classes, "channels": channels, "height": size[0], "width": size[1]}
    if as_json:
        print(json.dumps({"data": name or None, **shape, "models": [asdict(row) for row in rows]}, indent=2))
        return
    said = f"for {name}" if name else "for images as CIFAR-10 has them (the data set is not here yet)"
    print(f"{said}: {classes} classes, {channels} channels, {size[0]} x {size[1]} pixels")
    for row in rows:
        print(f"{row.name}: {row.why or f'{row.parameters:,} weights; takes {row.takes}'}")
    print("package.module:function: your own, called with (num_classes, channels)")


def _preflight(here: Project, config: Any) -> None:
    """Refuse what can be known to be wrong before Prefect starts, which takes seconds."""
    from tasks.run.inputs import preflight

    preflight(here, config)


def _print_plan(here: Project, config: Any, as_json: bool) -> None:
    from flows.unlearn import plan

    _print_with_cost(here, config, plan(here, config), as_json)


def _print_label_plan(here: Project, config: Any, as_json: bool) -> None:
    from flows.label import plan

    _print_with_cost(here, config, plan(here, config), as_json)


def _print_with_cost(here: Project, config: Any, decisions: Any, as_json: bool) -> None:
    from megu.cli.terminal import print_plan
    from tasks.labeler import cost

    # Only some methods need a labeler: for the others nothing will be asked.
    labeling = next((decision for decision in decisions if decision.label == "labeling"), None)
    print_plan(decisions, cost(here, config, labeling.hit) if labeling else None, as_json=as_json)
