"""``megu data``: data sets under ``data/``, their pins, and whose data each sample is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megu.cli.common import find_project, watching, writable_project

if TYPE_CHECKING:
    from megu.core.project import Project
    from megu.subjects.table import Table

data_app = typer.Typer(help="Data sets under data/ and their pins in data.dvc.", no_args_is_help=True)
#: Maximum number of unreadable images listed on the console.
_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(data_app, name="data")


@data_app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(help="The data set: fashion-mnist, cifar10, cifar100, cifar20, or one from an installed package.")
    ] = "fashion-mnist",
    local: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="PATH", help="A copy that you have, tried before all other sources. Repeatable."),
    ] = None,
) -> None:
    """Fetch a data set into data/ from the first source that has it, and compare it with its pin."""
    from megu.data.sources import providers

    here = writable_project()
    with watching():
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
            metavar="PIXELS", help="Resize every image: 32, or 24x32 (height x width). Without it all must have the same size."
        ),
    ] = None,
    superclasses: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON file {superclass: [class, …]}, for sub-class requests.")
    ] = None,
    labels: Annotated[str, typer.Option(help="'fine' (the class folders) or 'coarse' (their superclasses).")] = "fine",
    only: Annotated[str | None, typer.Option(metavar="CLASS,CLASS,…", help="Take only these class folders.")] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=1, help="Take at most this many images of each class, in train and in test: the same ones every time."
        ),
    ] = None,
    max_corrupt: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="The largest share of unreadable images to leave out; above it the data set is refused."
        ),
    ] = 0.01,
    people: Annotated[
        Path | None,
        typer.Option(
            "--subjects", metavar="FILE", help="A CSV file with the columns subject and sample: the person of each image."
        ),
    ] = None,
    source_name: Annotated[str, typer.Option("--source", help="Where the images come from, for the record.")] = "",
    licence: Annotated[str, typer.Option(help="Their licence, for the record.")] = "",
) -> None:
    """Add your own images under data/ and pin them in data.dvc."""
    from megu.data import arrays
    from megu.data.images.duplicates import duplicate_lines
    from megu.data.images.packing import parse_packing
    from megu.data.sources import providers
    from megu.subjects import table as tables

    packing = parse_packing(size, superclasses, labels, max_corrupt, only, per_class)
    here = writable_project()
    read: list[Table] = []

    def screen(folder: Path) -> list[str]:
        lines = _screen(here)(folder)
        if people:  # refused before any part of the data set is in place
            read.append(tables.read(people, arrays.load(folder)))
        return lines

    with watching():
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
        print(f"{name}: a part of the available images: {found.reduced}")
    for table in read:
        _record(here, name, table)
    print(f"{name}: DVC hash {added.dvc_hash}, pinned in data.dvc; use it with --set data.name={name}")


@data_app.command("status")
def data_status() -> None:
    """Compare every pinned data set with what is on disk; exit code 1 when one differs or is missing."""
    from megu.data.sources import providers

    with watching():
        rows = providers.status(find_project().root)
    for row in rows:
        print("\n".join([f"{row.name}: {row.state}", *(f"  {line}" for line in row.notes)]))
    if any(row.state != "ok" for row in rows):
        raise typer.Exit(1)


@data_app.command("subjects")
def subjects(
    name: Annotated[str, typer.Argument(help="The data set.")],
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A CSV file with the columns subject and sample (an id or a file). Without it: show what is recorded.",
        ),
    ] = None,
) -> None:
    """Record which person each sample of a data set belongs to, replacing earlier records; only keyed hashes are stored."""
    from megu.data import arrays
    from megu.subjects import table as tables
    from megu.subjects.store import Subjects

    if table is None:
        header = Subjects(find_project()).header(name)
        print(f"{name}: {header.subjects:,} subjects of {header.samples:,} samples")
        return
    here = writable_project()
    _record(here, name, tables.read(table, arrays.load(here.data(name))))


def _screen(here: Project) -> Callable[[Path], list[str]]:
    """Return the check that keeps erased images out of a data set."""
    from functools import partial

    from megu.core.settings.sections import section
    from megu.data.params import DataParams
    from megu.suppression import screening

    return partial(screening.screen, here, section(here.params, "data", DataParams).suppressed)


def _pin_in_words(pin: str) -> str:
    return "as pinned in data.dvc" if pin == "match" else "not pinned in data.dvc"


def _record(project: Project, name: str, table: Table) -> None:
    """Store the subjects of a data set, and print how many there are."""
    from megu.subjects.store import Subjects

    header = Subjects(project).record(name, table.pairs)
    rest = f"; {table.absent:,} rows name images that it does not have" if table.absent else ""
    print(f"{name}: {header.subjects:,} subjects of {header.samples:,} samples, as keyed hashes in .megu/subjects{rest}")
