"""The command line. It only reads arguments, calls, and prints; heavy imports wait until a command needs them.

One file because a person looks for a command's words and options here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu import __version__
from megu.cli.commands import automations, cache, documents, init, promotion, purge, requests, subjects, suppress
from megu.core import project
from megu.core.errors import MeguError
from megu.core.escaping import plain, visible
from megu.core.files.writable import disk_is_full, explained, refuse_unwritable
from megu.core.processes import interrupt
from megu.servers.environment import prepare_environment

if TYPE_CHECKING:
    from rich.console import Console

    from megu.subjects.table import Table

app = typer.Typer(
    name="megu",
    help="Machine unlearning as a pipeline: a request to forget in, an unlearned model with its evidence and lineage out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Data sets under data/ and their pins in data.dvc.", no_args_is_help=True)
app.add_typer(data_app, name="data")
lineage_app = typer.Typer(help="What a model came from, which models saw a sample, why two runs differ.", no_args_is_help=True)
app.add_typer(lineage_app, name="lineage")
keys_app = typer.Typer(help="Keys to sign dossiers with.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.command()(purge.purge)

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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print only the summary.")]


def _console() -> Console:
    """Progress and messages go to standard error, so that standard output holds results only."""
    from rich.console import Console

    return Console(stderr=True)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"megu {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    params: ParamsOption = None,
    settings: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and what is kept, and do nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the unlearning pipeline: what is kept is reused, the rest is computed, all of it is recorded."""
    here = _project()
    config = _config(here, params, settings)
    if dry_run:
        return _print_plan(here, config, as_json)
    _ready(here)
    _preflight(here, config)
    from megu.cli.terminal import Watcher, print_summary

    watcher = Watcher(_console(), show=not (quiet or as_json))
    _starting(here, watcher)
    from flows.unlearn import unlearn
    from megu.config.private import apart
    from megu.tracking import warm_up
    from tasks.run.running import from_terminal

    named, changes = apart(here, params.resolve() if params else here.params, settings or ())
    with from_terminal(warm_up), watcher:
        summary = unlearn(params=str(named), settings=changes)
    if as_json:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        print_summary(summary)
    return None


@app.command()
def label(
    params: ParamsOption = None,
    settings: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many questions at most, how long, and ask none.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Draw the kept judgement into results/, with what it agrees with, and print it.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Have a labeler judge the data set and keep it: once, resumable, for every later request."""
    here = _project()
    config = _config(here, params, settings)
    if dry_run:
        return _print_label_plan(here, config, as_json)
    _ready(here, tracked=False)
    from megu.cli.terminal import Watcher, print_labeling, print_shown

    watcher = Watcher(_console(), show=not (quiet or as_json))
    from megu.config.private import apart

    private, changes = apart(here, params.resolve() if params else here.params, settings or ())
    named = str(private)
    if show:
        _starting(here, watcher, "Prefect")
        from flows.label import look
        from tasks.run.running import from_terminal

        with from_terminal(), watcher:
            shown = look(here, config, named, changes)
        return print_shown(shown, as_json=as_json)
    from tasks.run.inputs import labeler_ready

    labeler_ready(here, config)
    _starting(here, watcher, "Prefect")
    from flows.label import label as flow
    from tasks.run.running import from_terminal

    with from_terminal(), watcher:
        made = flow(params=named, settings=changes)
    return print_labeling(made, as_json=as_json)


@app.command()
def explain(params: ParamsOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Say for every stage whether its kept result would be used, and why (not)."""
    here = _project()
    _print_plan(here, _config(here, params, settings), as_json)


@app.command()
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
        bool, typer.Option("--dry-run", help="Print the number of runs and of stages to run and kept, and do nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the results (default: results/bench/<name>).")
    ] = None,
    document: Annotated[
        Path | None, typer.Option("--document", metavar="FILE.md", help="Write the page there too, its figures beside it.")
    ] = None,
) -> None:
    """Compare methods on targets over seeds with the true retrain, in one table; exit code 1 when a run failed."""
    here = _project()
    from megu.bench import config
    from megu.cli.terminal import Watcher, print_bench, print_bench_plan

    loaded = config.load(file, settings or ())
    watcher = Watcher(_console(), show=not (quiet or as_json))
    if dry_run:
        watcher.note("looking into the cache …")
    else:
        _ready(here)
        _starting(here, watcher)
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


@app.command("params")
def show_params(params: ParamsOption = None, settings: SetOption = None) -> None:
    """Print the whole configuration, every default included, as YAML."""
    import yaml

    print(yaml.safe_dump(_config(_project(), params, settings).to_json(), sort_keys=False), end="")


@app.command("methods")
def list_methods(as_json: JsonOption = False) -> None:
    """List the unlearning methods, those of installed plugins too: what each does, needs and costs, and its parameters."""
    from megu.cli.terminal import print_methods
    from megu.core.plugins import usable
    from megu.unlearning.methods import GROUP, METHODS, described, fault

    found, problems = usable(GROUP, METHODS, fault)
    print_methods([described(name, method) for name, method in {**METHODS, **found}.items()], as_json=as_json)
    for problem in problems:
        print(f"megu: {' '.join(problem.split())}", file=sys.stderr)


@app.command("models")
def list_models(params: ParamsOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """List the architectures, with the number of weights that each has for the data set at hand."""
    from megu.data import arrays
    from megu.models import listing

    here = _project()
    name = _config(here, params, settings).data.name
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


@data_app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(help="The data set: fashion-mnist, cifar10, cifar100, cifar20, or one that a package brings.")
    ] = "fashion-mnist",
    local: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="PATH", help="A copy that you have, asked before all else. Repeatable."),
    ] = None,
) -> None:
    """Bring a data set under data/ by the first source that has it, and compare it with its pin."""
    from megu.data.sources import providers

    here = _writable()
    with _watching():
        fetched = providers.fetch(here.root, name, local or (), _screen(here))
    for line in fetched.notes:
        print(f"{name}: {line}", file=sys.stderr)
    print(f"{name}: {fetched.provider}, DVC hash {fetched.dvc_hash} ({_pin_in_words(fetched.pin)})")


@data_app.command()
def add(
    source: Annotated[
        list[Path], typer.Argument(help="Folders or archives (zip, tar) of train/<class>/<image> and test/<class>/<image>.")
    ],
    name: Annotated[str, typer.Option("--name", help="The data set's name, its folder under data/.")],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS", help="Bring every image to this size: 32, or 24x32 (height x width). Else all must have one."
        ),
    ] = None,
    superclasses: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON file {superclass: [class, …]}, for sub-class requests.")
    ] = None,
    labels: Annotated[str, typer.Option(help="'fine' (the class folders) or 'coarse' (their superclasses).")] = "fine",
    only: Annotated[str | None, typer.Option(metavar="CLASS,CLASS,…", help="Take these class folders and no other.")] = None,
    per_class: Annotated[
        int | None,
        typer.Option(min=1, help="Take so many images of each class at most, in train and in test: the same ones every time."),
    ] = None,
    max_corrupt: Annotated[
        float, typer.Option(min=0, max=1, help="The largest share of unreadable images that is left out rather than refused.")
    ] = 0.01,
    people: Annotated[
        Path | None,
        typer.Option("--subjects", metavar="FILE", help="A CSV file with the columns subject and sample: whose each image is."),
    ] = None,
    source_name: Annotated[str, typer.Option("--source", help="Where the images come from, for the record.")] = "",
    licence: Annotated[str, typer.Option(help="Their licence, for the record.")] = "",
) -> None:
    """Bring your own images under data/ and pin them in data.dvc."""
    from megu.data import arrays
    from megu.data.images.duplicates import duplicate_lines
    from megu.data.images.packing import parse_packing
    from megu.data.sources import providers
    from megu.subjects import table as tables

    packing = parse_packing(size, superclasses, labels, max_corrupt, only, per_class)
    here = _writable()
    read: list[Table] = []

    def screen(folder: Path) -> list[str]:
        lines = _screen(here)(folder)
        if people:  # refused before anything of the data set is in its place
            read.append(tables.read(people, arrays.load(folder)))
        return lines

    with _watching():
        added = providers.add(here.root, source, name, source_name=source_name, licence=licence, packing=packing, screen=screen)
    found = arrays.load(added.dataset_path)
    for line in found.left_out[:_SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if found.left_out:
        print(f"{name}: {len(found.left_out)} images could not be read; data/{name}/meta.json lists them", file=sys.stderr)
    for line in (*added.notes, *duplicate_lines(found)):
        print(f"{name}: {line}", file=sys.stderr)
    height, width = found.image_size
    kinds = f"{found.num_classes} classes" + (f" (superclasses of {len(found.fine)})" if found.fine else "")
    pixels = f"{height} x {width} pixels, {'grey' if found.channels == 1 else 'colour'}"
    print(f"{name}: {len(found.train):,} + {len(found.test):,} images of {pixels}, {kinds}")
    if found.reduced:
        print(f"{name}: a part of the images that are there: {found.reduced}")
    for table in read:
        subjects.record(here, name, table)
    print(f"{name}: DVC hash {added.dvc_hash}, pinned in data.dvc; use it with --set data.name={name}")


#: Unreadable images named on the console.
_SHOWN = 10


@data_app.command("status")
def data_status() -> None:
    """Compare every pinned data set with what is on disk; exit code 1 when one differs or is missing."""
    from megu.data.sources import providers

    with _watching():
        rows = providers.status(_project().root)
    for row in rows:
        print("\n".join([f"{row.name}: {row.state}", *(f"  {line}" for line in row.notes)]))
    if any(row.state != "ok" for row in rows):
        raise typer.Exit(1)


def _screen(here: project.Project) -> Callable[[Path], list[str]]:
    """What keeps images that were erased out of a data set."""
    from functools import partial

    from megu.core.settings.sections import section
    from megu.data.params import DataParams
    from megu.suppression import screening

    return partial(screening.screen, here, section(here.params, "data", DataParams).suppressed)


def _pin_in_words(pin: str) -> str:
    return "as pinned in data.dvc" if pin == "match" else "not pinned in data.dvc"


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="An MLflow run id, models:/name/version or @alias, or a dossier's folder.")],
    replay: Annotated[
        bool, typer.Option("--replay", help="Predict and evaluate again from the weights, and ask the served form.")
    ] = False,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", metavar="FILE", help="A public key (PEM) that may have signed. Repeatable; else the project's own."
        ),
    ] = None,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Take what a signed purge of this run erased as it should be.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Recompute all that a dossier says; exit code 0: all holds, 1: something differs, 2: something cannot be checked here."""
    from megu.lineage.keys import read_public
    from megu.lineage.verify import run as lineage

    here = _project_if_any()
    trusted = [read_public(path) for path in key or ()]
    report = lineage.verify(target, here, replay=replay, trusted=trusted, sealed=sealed)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        for check in report.checks:
            print(f"{ {True: '✓', False: '✗', None: '?'}[check.holds] } {check.name}: {plain(check.says)}")
        print({0: "all holds", 1: "NOT as recorded", 2: "nothing differs, but not all can be checked here"}[report.exit_code])
    raise typer.Exit(report.exit_code)


@lineage_app.command("show")
def lineage_show(
    target: Annotated[str | None, typer.Argument(help="As for `megu verify`; the newest dossier when left out.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid flowchart.")] = False,
) -> None:
    """Show what a model came from, back to the data."""
    from megu.lineage import graph, reading

    found = reading.dossier_of(target, _project_if_any())
    version = found.dossier.tracked.version
    model = f"models:/{version['name']}/{version['version']}" if version else None
    print(visible((graph.mermaid if mermaid else graph.text)(found.records, model)))


@lineage_app.command("which")
def lineage_which(
    sample: Annotated[str, typer.Option("--sample", help="A sample id, an image file, or an image's name in its data set.")],
    as_json: JsonOption = False,
) -> None:
    """Say of every recorded model version whether it was trained on a sample, forgot it or never saw it."""
    from megu.lineage import indexing

    ids, answers = indexing.which(_project(), sample)
    rows: list[dict[str, Any]] = [
        {
            "model": answer.row.model or None,
            "mlflow_run_id": answer.row.run_id,
            "history": answer.unlearned,
            "original": answer.original,
            "original_weights": answer.row.original,
            "request": answer.row.request,
            "created": answer.row.created,
        }
        for answer in answers
    ]
    if as_json:
        print(json.dumps({"ids": ids, "models": rows}, indent=2))
        return
    words = {
        "trained": "trained on it",
        "forgot": "forgot it",
        "never saw": "never saw it",
        "unknown": "was given, so nobody here knows",
    }
    for row in rows:
        print(
            f"{row['model'] or 'not registered'}: {words[row['history']]}; its original: {words[row['original']]}"
            f" (run {row['mlflow_run_id']}, {row['created'][:10]}, forget {plain(row['request'])})"
        )


@lineage_app.command("diff")
def lineage_diff(
    before: Annotated[str, typer.Argument(help="As for `megu verify`.")],
    after: Annotated[str, typer.Argument(help="As for `megu verify`.")],
    as_json: JsonOption = False,
) -> None:
    """Say why two runs differ: data, request, code, parameters, labeler, seeds, environment, and what came of it."""
    from megu.lineage import compare, reading

    here = _project_if_any()
    one, two = reading.dossier_of(before, here), reading.dossier_of(after, here)
    found = compare.diff(one.dossier, two.dossier, one.records, two.records)
    if as_json:
        print(json.dumps({"roots": [one.dossier.root, two.dossier.root], "differences": found}, indent=2))
        return
    same = one.dossier.root == two.dossier.root
    print(f"root: {'the same' if same else 'another'} ({one.dossier.root[:16]}…, {two.dossier.root[:16]}…)")
    for group, lines in found.items():
        print(f"{group}: {'the same' if not lines else ''}")
        for line in lines:
            print(f"  {line}")


@lineage_app.command("index")
def lineage_index() -> None:
    """Make the index that `which` asks from the project's dossiers; exit code 1 when one could not be read."""
    from megu.lineage import indexing

    done, problems = indexing.rebuild(_writable())
    print(f"{done} runs")
    for problem in problems:
        print(f"megu: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


@keys_app.command("create")
def keys_create() -> None:
    """Make an Ed25519 key in .megu/keys that dossiers are signed with from now on (passphrase: MEGU_KEY_PASSPHRASE)."""
    from megu.lineage.keys import Keys, signer
    from megu.lineage.verify import unsigned

    here = _writable()
    public = Keys(here.keys).create()
    made = signer(Keys(here.keys), None)
    assert made is not None
    older = unsigned.begin(here, made)
    print(f"signing key: {here.relative(Keys(here.keys).private)} (keep it; back it up)")
    print(f"public key:  {here.relative(public)} (give it to whoever is to verify: megu verify FOLDER --key FILE)")
    if older:
        print(
            f"{len(older)} dossiers are older than the key and unsigned: it has signed which ({here.relative(unsigned.path(here))})"
        )


@keys_app.command("adopt")
def keys_adopt(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="As for `megu verify`: dossiers older than the key.")],
) -> None:
    """Sign that unsigned dossiers are older than the key, so that `megu verify` does not miss a signature. Verify them first."""
    from megu.config import tree as config
    from megu.lineage.keys import Keys, signer
    from megu.lineage.verify import unsigned

    here = _project()
    named = config.load(here.params).lineage.key
    key = signer(Keys(here.keys), here.root / named if named else None)
    if key is None:
        raise MeguError(
            "there is no key to sign with", "without one, unsigned dossiers are no fault; `megu keys create` makes one"
        )
    for run_id in unsigned.adopt(here, key, runs):
        print(f"{run_id}: unsigned, and older than the key by its own signature ({here.relative(unsigned.path(here))})")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check what is installed, reachable and missing, each with the fix; exit code 1 when something needed is missing."""
    from megu.cli.doctor import checks
    from megu.cli.terminal import print_checks

    here = _project()
    found = checks(here.root, here.home)
    print_checks(found, as_json=as_json)
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


@app.command()
def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.", min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.", min=1, max=65535)] = 5000,
) -> None:
    """Start a Prefect server and an MLflow server over this project, on this machine only (127.0.0.1)."""
    from megu.servers import services

    with _watching():
        started = services.up(_writable().home, prefect_port=prefect_port, mlflow_port=mlflow_port)
    for service in started:
        print(f"{service.name}: {service.url}")


@app.command()
def down() -> None:
    """Stop the servers that `megu up` started."""
    from megu.servers import services

    stopped = services.down(_project().home)
    print("\n".join(f"{name}: stopped" for name in stopped) or "nothing was running")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen at; another than loopback needs a proxy with TLS and a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5001,
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks at the champion.")] = 5.0,
) -> None:
    """Serve the champion with `mlflow models serve`, started again whenever another version becomes the champion."""
    from megu.core.settings.sections import section
    from megu.promotion.params import RegistryParams
    from megu.serving import supervisor

    here = _project()
    name = section(here.params, "registry", RegistryParams).name
    supervisor.serve(here, name, host, port, every, lambda line: print(plain(line), flush=True))


@app.command()
def status(
    served: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this server which version it has (default: promotion.served); exit code 1 when not the champion.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how things stand: servers, requests, champion, what is served, last runs, next schedules, what needs a person."""
    from megu.core.settings.sections import section
    from megu.promotion.params import PromotionParams, RegistryParams
    from megu.requests.overview import markdown, overview
    from megu.requests.request import RequestParams

    here = _project()
    name = section(here.params, "registry", RegistryParams).name
    wanted = section(here.params, "promotion", PromotionParams)
    seen = _served(here, name, wanted, served)
    now = overview(
        here,
        name,
        section(here.params, "requests", RequestParams),
        served=seen.to_json() if seen else None,
        awaited=bool(wanted.served),
    )
    if as_json:
        print(json.dumps(now.to_json(), indent=2))
    else:
        for service, url in now.services.items():
            print(f"{service}: {url or 'not running'}")
        print(f"\n{markdown(now, plain)}")
    if served and seen and seen.verdict != "champion":
        raise typer.Exit(1)


def _served(here: project.Project, name: str, params: Any, url: str | None) -> Any:
    """What a server was seen to have; the configured one closes requests with it. None where there is none to ask."""
    from megu.promotion.params import ADDRESS, is_address

    if url is not None and not is_address(url):
        raise MeguError(f"--served {url} is not {ADDRESS.partition(',')[0]}", "for example --served http://127.0.0.1:5001")
    if url is None and not params.served:
        return None
    from megu.serving import check, follow

    if url is not None:
        return check.look(here, name, url)
    seen, closed, troubles = follow.look(here, name, params)
    for line in [*troubles, *([f"closed with it: {', '.join(closed)}"] if closed else [])]:
        print(f"megu: {plain(line)}", file=sys.stderr)
    return seen


def _project() -> project.Project:
    here = project.find()
    # Prefect's log goes to its server; what it says on the console, the watcher says better.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    prepare_environment(here)
    return here


def _writable() -> project.Project:
    """The project of a command that writes; refused before anything is computed where nothing can be written."""
    here = _project()
    refuse_unwritable(here.root, here.home)
    return here


def _ready(here: project.Project, *, tracked: bool = True) -> None:
    from megu.servers.ready import refuse_unusable

    refuse_unusable(here, tracked=tracked)


def _starting(here: project.Project, watcher: Any, what: str = "Prefect and MLflow") -> None:
    """Before a flow: the database of Prefect's temporary server is made here, whole or not at all."""
    watcher.note(f"starting {what} …")
    from megu.servers import databases as creation

    creation.ensure_own_prefect(here.home / "prefect")


def _ready_to_process() -> project.Project:
    here = _project()
    _ready(here)
    return here


def _project_if_any() -> project.Project | None:
    """A dossier can be looked at outside of any project."""
    try:
        return _project()
    except MeguError:
        return None


def _config(here: project.Project, params: Path | None, settings: list[str] | None) -> Any:
    from megu.config import tree as config

    return config.load(params or here.params, settings or ())


def _preflight(here: project.Project, config: Any) -> None:
    """Refuse what can be known to be wrong before Prefect starts, which takes seconds."""
    from tasks.run.inputs import preflight

    preflight(here, config)


def _print_plan(here: project.Project, config: Any, as_json: bool) -> None:
    from flows.unlearn import plan

    _print_with_cost(here, config, plan(here, config), as_json)


def _print_label_plan(here: project.Project, config: Any, as_json: bool) -> None:
    from flows.label import plan

    _print_with_cost(here, config, plan(here, config), as_json)


def _print_with_cost(here: project.Project, config: Any, decisions: Any, as_json: bool) -> None:
    from megu.cli.terminal import print_plan
    from tasks.labeler import cost

    # Only some methods need a labeler: for the others nothing will be asked.
    labeling = next((decision for decision in decisions if decision.label == "labeling"), None)
    print_plan(decisions, cost(here, config, labeling.hit) if labeling else None, as_json=as_json)


def _watching(show: bool = True) -> Any:
    from megu.cli.terminal import Watcher

    return Watcher(_console(), show=show)


init.register(app)
promotion.register(app, _writable, _config)
requests.register(app, _project, _writable, _config, _ready_to_process, _watching)
automations.register(app, _project)
cache.register(app, _project, _writable)
suppress.register(app, _project, _writable)
subjects.register(data_app, _project, _writable)


documents.register(app, _project_if_any)


def main() -> None:
    """Entry point: one line and exit code 2 for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM."""
    logging.captureWarnings(True)
    with interrupt.guarding():
        code = guarded(lambda: app(standalone_mode=False))
    sys.exit(code)


def guarded(call: Callable[[], Any]) -> int:
    """The exit code of ``call``; what the user can mend is said in one line."""
    try:
        return int(call() or 0)
    except MeguError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as leave:
        return leave.exit_code
    except typer.TyperException as error:
        message, context = error.format_message(), getattr(error, "ctx", None)
        if "\n" in message:  # no command at all: the message is the help
            print(message, file=sys.stderr)
            return error.exit_code
        return _fail(
            f"{message.rstrip('.')}{f': {context.command_path} --help shows what there is' if context else ''}", error.exit_code
        )
    except (KeyboardInterrupt, typer.Abort):
        return _fail(interrupt.SAYS, 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if (refused := _refused_write(error)) is None:
            raise
        return _fail(str(refused), refused.exit_code)


def _refused_write(error: Exception) -> MeguError | None:
    """What the disk or a permission made of a command, where nobody nearer to it has said so."""
    if disk_is_full(error):
        return MeguError("the disk is full; nothing half-written was kept", "free some space and run again")
    named = getattr(error, "filename", None)
    return explained(error, Path(os.fsdecode(named))) if isinstance(error, OSError) and named else None


def _fail(message: str, code: int) -> int:
    if not interrupt.received():  # what was stopped says that it was, and nothing that came of it
        print(f"megu: {plain(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
