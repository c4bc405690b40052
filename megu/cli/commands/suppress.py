"""``megu suppress``: what was erased and must not come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megu.cli.common import JsonOption, find_project, writable_project
from megu.core.escaping import plain

if TYPE_CHECKING:
    from megu.core.project import Project
    from megu.suppression.store import Suppressions


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="What was erased, and must not come back: list it, check images, export and import.", no_args_is_help=True
    )
    app.add_typer(group, name="suppress")

    def suppressions(find: Callable[[], Project]) -> Suppressions:
        from megu.suppression.store import Suppressions

        return Suppressions(find())

    _looking(group, lambda: suppressions(find_project))
    _changing(group, lambda: suppressions(find_project), lambda: suppressions(writable_project))


def _looking(group: typer.Typer, suppressions: Callable[[], Suppressions]) -> None:
    @group.command("list")
    def list_records(as_json: JsonOption = False) -> None:
        """List the records: how many samples, by which request, when, and until when they count."""
        from datetime import UTC, datetime

        headers = [record.header for record in suppressions().records()]
        if as_json:
            print(json.dumps({"records": [asdict(header) for header in headers]}, indent=2))
            return
        today = datetime.now(UTC).date()
        for header in headers:
            until = f"until {header.until}{' (expired)' if header.expired(today) else ''}" if header.until else "forever"
            print(f"{header.id}  {header.samples:,} samples of {header.data}, erased {header}, {until}")
        print(f"{len(headers)} records, {sum(header.samples for header in headers):,} samples")

    @group.command()
    def check(
        source: Annotated[
            Path, typer.Argument(metavar="FOLDER", help="A folder or archive of images, or a data set's folder.")
        ],
        file: Annotated[
            Path | None, typer.Option("--list", metavar="FILE", help="An exported list to use instead of the project's.")
        ] = None,
        key: Annotated[
            Path | None,
            typer.Option("--key", metavar="FILE", help="The commitments.key of an exported list (default: the project's)."),
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show which images were erased, and which closely resemble an erased one; exit code 1 when one was erased."""
        from megu.suppression.files import check_files
        from megu.suppression.listed import SuppressionList

        own = suppressions()
        listed = SuppressionList.read(file, key or own.project.keys / "commitments.key") if file else own.opened()
        found = check_files(listed, source)
        if as_json:
            rows = [
                {"image": row.name, "verdict": row.verdict, "record": row.header.id, "erased": str(row.header)}
                for row in found.rows
            ]
            print(json.dumps({"images": found.images, "unreadable": found.unreadable, "found": rows}, indent=2))
        else:
            for row in found.rows:
                said = "erased" if row.verdict == "certain" else "suspected: it closely resembles an erased image"
                print(f"{plain(row.name)}: {said} {row.header}")
            for name in found.unreadable:
                print(f"{plain(name)}: cannot be read")
            counts = ", ".join(f"{found.count(verdict):,} {verdict}" for verdict in ("certain", "suspected"))
            print(f"{found.images:,} images against {len(listed):,} erased samples: {counts}")
        if found.count("certain"):
            raise typer.Exit(1)


def _changing(group: typer.Typer, suppressions: Callable[[], Suppressions], writable: Callable[[], Suppressions]) -> None:
    @group.command()
    def export(
        file: Annotated[
            Path, typer.Argument(metavar="FILE", help="Where the list is written. Only the holder of the key can use it.")
        ],
    ) -> None:
        """Write the list to one file, for a backup or another pipeline (`megu.suppression.SuppressionList`)."""
        from megu.core.errors import MeguError
        from megu.core.files.store import writing

        if file.is_dir():
            raise MeguError(f"{file} is a folder", f"name a file, such as {file / 'suppressed'}")
        records = suppressions().records()
        with writing(file) as temporary:
            temporary.write_bytes(b"".join(record.to_bytes() for record in records))
        print(
            f"{file}: {len(records)} records; it is useless without .megu/keys/commitments.key, which should be sent separately"
        )

    @group.command("import")
    def import_(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A list that was exported under this project's key.")],
    ) -> None:
        """Import the records of an exported list that are missing here, as after a restore."""
        from megu.core.errors import MeguError

        try:
            content = file.read_bytes()
        except OSError as error:
            raise MeguError(f"{file} cannot be read ({error.strerror})", "name the file of `megu suppress export`") from None
        new, lines = writable().take(content, str(file))
        for line in lines:
            print(line)
        print(f"{len(new)} records taken in, {sum(record.header.samples for record in new):,} samples")

    @group.command()
    def remove(
        record: Annotated[str, typer.Argument(metavar="RECORD", help="The record's id, as `megu suppress list` shows it.")],
        reason: Annotated[
            str,
            typer.Option(
                help="consent-given, erased-by-mistake, retention-expired or court-order; stored in the ledger permanently."
            ),
        ],
    ) -> None:
        """Remove a record, so that its images may be used again."""
        writable().remove(record, reason)
        print(f"{record}: removed ({reason}); the ledger has it")
