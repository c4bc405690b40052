"""``megu cache``: the results that the stages have stored, their size, and removing those that nothing needs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from megu.cli.common import JsonOption, find_project, writable_project
from megu.core.errors import MeguError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Cached results of the stages: list them, show their size, remove old ones.", no_args_is_help=True)
    app.add_typer(group, name="cache")

    @group.command("list")
    def list_results(as_json: JsonOption = False) -> None:
        """List every cached result, oldest first: its key, when it was computed, by which run, its size, whether a dossier needs it."""
        from megu.erasure import cache

        here = find_project()
        found, needed = cache.entries(here), cache.by_dossiers(here)
        rows = [(entry, needed.results.get(entry.key, "")) for entry in found]
        if as_json:
            print(json.dumps({"results": [{**entry.to_json(), "needed_by": by or None} for entry, by in rows]}, indent=2))
            return
        for entry, by in rows:
            made = entry.run or entry.flow or "no run known"
            print(f"{entry.key}  {entry.created:%Y-%m-%d %H:%M}  {_mb(entry.size):>9}  {made}{f'  ({by})' if by else ''}")

    @group.command()
    def size(as_json: JsonOption = False) -> None:
        """Show how much space the cache takes, by stage; a file that several results use counts once, for the first of them."""
        from megu.erasure import cache

        here = find_project()
        found, counted = cache.entries(here), set[str]()
        bytes_of, results = Counter[str](), Counter(entry.stage for entry in found)
        for entry in found:
            new = {ref.sha256: ref.size for ref in entry.files if ref.sha256 not in counted}
            counted |= set(new)
            bytes_of[entry.stage] += entry.size - sum(ref.size for ref in entry.files) + sum(new.values())
        unnamed = cache.unnamed(here, found, cache.by_dossiers(here))
        loose = sum(path.stat().st_size for path in unnamed)
        if as_json:
            stages = {stage: {"results": results[stage], "bytes": bytes_of[stage]} for stage in sorted(results)}
            whole = {"stages": stages, "unnamed": {"files": len(unnamed), "bytes": loose}}
            print(json.dumps({**whole, "bytes": sum(bytes_of.values()) + loose}, indent=2))
            return
        for stage, count in bytes_of.most_common():
            print(f"{stage}: {results[stage]} results, {_mb(count)}")
        print(f"files that no result names: {len(unnamed)}, {_mb(loose)}")
        print(f"together: {_mb(sum(bytes_of.values()) + loose)}")

    @group.command()
    def prune(
        older_than: Annotated[
            int | None,
            typer.Option("--older-than", metavar="DAYS", min=0, help="Results that are at least this many days old."),
        ] = None,
        run: Annotated[
            str | None, typer.Option("--run", metavar="RUN", help="Results that this MLflow run or Prefect flow run computed.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Remove results by age, by run or both, with their files; never those that a dossier or a registered version needs, and never
        while a run is under way."""
        if older_than is None and run is None:
            raise MeguError("megu cache prune needs to know what to remove", "specify --older-than DAYS, --run RUN or both")
        from megu.erasure import cache

        found = cache.plan(find_project(), older_than, run) if dry_run else cache.prune(writable_project(), older_than, run)
        if as_json:
            print(json.dumps({"dry_run": dry_run, **found.to_json()}, indent=2))
            return
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} {len(found.results)} results and {len(found.files)} files, {_mb(found.size)}")
        for by, count in sorted(found.spared.items()):
            print(f"{count} stay, needed by {by}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
