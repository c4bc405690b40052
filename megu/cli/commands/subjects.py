"""``megu data subjects``, and ``megu data add --subjects``: which person each sample is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from megu.core.project import Project
    from megu.subjects.table import Table


def register(app: typer.Typer, project: Callable[[], Project], writable: Callable[[], Project]) -> None:
    """Add the command. project, writable: how the command line finds a project to read and one to write."""

    @app.command("subjects")
    def subjects(
        name: Annotated[str, typer.Argument(help="The data set.")],
        table: Annotated[
            Path | None,
            typer.Argument(
                metavar="FILE",
                help="A CSV file with the columns subject and sample (an id or a file). None: say what there is.",
            ),
        ] = None,
    ) -> None:
        """Say which person each sample of a data set is of, in the place of what was said before; only keyed hashes are kept."""
        from megu.data import arrays
        from megu.subjects import table as tables
        from megu.subjects.kept import Subjects

        if table is None:
            header = Subjects(project()).header(name)
            print(f"{name}: {header.subjects:,} subjects of {header.samples:,} samples")
            return
        here = writable()
        record(here, name, tables.read(table, arrays.load(here.data(name))))


def record(project: Project, name: str, table: Table) -> None:
    """Keep the subjects of a data set, and say how many there are."""
    from megu.subjects.kept import Subjects

    header = Subjects(project).record(name, table.pairs)
    rest = f"; {table.absent:,} rows name images that it does not have" if table.absent else ""
    print(f"{name}: {header.subjects:,} subjects of {header.samples:,} samples, as keyed hashes in .megu/subjects{rest}")
