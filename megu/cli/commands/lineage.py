"""``megu verify``, ``megu lineage`` and ``megu keys``: what a model came from, and whether its dossier is correct."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from megu.cli.common import JsonOption, find_project, project_if_any, writable_project
from megu.core.errors import MeguError
from megu.core.escaping import plain, visible

lineage_app = typer.Typer(help="What a model came from, which models saw a sample, why two runs differ.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys that sign dossiers.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
    app.add_typer(lineage_app, name="lineage")
    app.add_typer(keys_app, name="keys")


def verify(
    target: Annotated[str, typer.Argument(help="An MLflow run id, models:/name/version or @alias, or a dossier's folder.")],
    replay: Annotated[
        bool, typer.Option("--replay", help="Predict and evaluate again from the weights, and query the served form.")
    ] = False,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="A public key (PEM) whose signature is accepted. Repeatable; default: the project's own.",
        ),
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Treat what a signed purge of this run erased as expected.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Recompute everything that a dossier states; exit code 0: all holds, 1: something differs, 2: something cannot be checked here."""
    from megu.lineage.keys import read_public
    from megu.lineage.verify import run as lineage

    here = project_if_any()
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

    found = reading.dossier_of(target, project_if_any())
    version = found.dossier.tracked.version
    model = f"models:/{version['name']}/{version['version']}" if version else None
    print(visible((graph.mermaid if mermaid else graph.text)(found.records, model)))


@lineage_app.command("which")
def lineage_which(
    sample: Annotated[str, typer.Option("--sample", help="A sample id, an image file, or an image's name in its data set.")],
    as_json: JsonOption = False,
) -> None:
    """Show for every recorded model version whether it was trained on a sample, forgot it or never saw it."""
    from megu.lineage import indexing

    ids, answers = indexing.which(find_project(), sample)
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
        "unknown": "was supplied, so its history is unknown",
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
    """Show why two runs differ: data, request, code, parameters, labeler, seeds, environment, and the effect on the results."""
    from megu.lineage import compare, reading

    here = project_if_any()
    one, two = reading.dossier_of(before, here), reading.dossier_of(after, here)
    found = compare.diff(one.dossier, two.dossier, one.records, two.records)
    if as_json:
        print(json.dumps({"roots": [one.dossier.root, two.dossier.root], "differences": found}, indent=2))
        return
    same = one.dossier.root == two.dossier.root
    print(f"root: {'the same' if same else 'different'} ({one.dossier.root[:16]}…, {two.dossier.root[:16]}…)")
    for group, lines in found.items():
        print(f"{group}: {'the same' if not lines else ''}")
        for line in lines:
            print(f"  {line}")


@lineage_app.command("index")
def lineage_index() -> None:
    """Build the index that `which` uses from the project's dossiers; exit code 1 when one could not be read."""
    from megu.lineage import indexing

    done, problems = indexing.rebuild(writable_project())
    print(f"{done} runs")
    for problem in problems:
        print(f"megu: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


@keys_app.command("create")
def keys_create() -> None:
    """Create an Ed25519 key in .megu/keys that signs dossiers from now on (passphrase: MEGU_KEY_PASSPHRASE)."""
    from megu.lineage.keys import Keys, signer
    from megu.lineage.verify import unsigned

    here = writable_project()
    public = Keys(here.keys).create()
    made = signer(Keys(here.keys), None)
    assert made is not None
    older = unsigned.begin(here, made)
    print(f"signing key: {here.relative(Keys(here.keys).private)} (keep it secret; back it up)")
    print(f"public key:  {here.relative(public)} (give it to those who verify: megu verify FOLDER --key FILE)")
    if older:
        print(
            f"{len(older)} unsigned dossiers are older than the key; it has signed their list ({here.relative(unsigned.path(here))})"
        )


@keys_app.command("adopt")
def keys_adopt(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="As for `megu verify`: dossiers older than the key.")],
) -> None:
    """Sign that unsigned dossiers are older than the key, so that `megu verify` does not report a missing signature. Verify them
    first."""
    from megu.config import tree as config
    from megu.lineage.keys import Keys, signer
    from megu.lineage.verify import unsigned

    here = find_project()
    named = config.load(here.params).lineage.key
    key = signer(Keys(here.keys), here.root / named if named else None)
    if key is None:
        raise MeguError(
            "there is no key to sign with", "without one, unsigned dossiers are not a fault; `megu keys create` makes one"
        )
    for run_id in unsigned.adopt(here, key, runs):
        print(f"{run_id}: unsigned, and older than the key by its own signature ({here.relative(unsigned.path(here))})")
