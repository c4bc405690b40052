"""``megu promote`` and ``megu rollback``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu.cli.common import read_config, writable_project
from megu.core.escaping import plain

if TYPE_CHECKING:
    from megu.config.tree import Config
    from megu.core.project import Project
    from megu.promotion.moves import Candidate, Moved

Approver = Annotated[str, typer.Option("--approver", metavar="NAME", help="Who decides; stored in the ledger permanently.")]
Rationale = Annotated[
    str,
    typer.Option(
        "--rationale",
        metavar="WHY",
        help="evidence-holds, first-model, deadline, risk-accepted or fault-in-production; any other text goes to MLflow only.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add both commands."""

    @app.command()
    def promote(
        version: Annotated[str | None, typer.Argument(help="The version's number (default: the challenger).")] = None,
        approve: Annotated[bool, typer.Option("--approve", help="Make it the champion.")] = False,
        reject: Annotated[
            bool, typer.Option("--reject", help="Record that it will not become the champion on this evidence.")
        ] = False,
        approver: Approver = "",
        rationale: Rationale = "",
        evidence: Annotated[
            str,
            typer.Option("--evidence", metavar="DIGEST", help="The digest of the evidence you saw, or 12 characters of it."),
        ] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Show what may be promoted and the gate's verdict; make it the champion with --approve, or without it if the policy allows
        that."""
        from megu.promotion import moves as promotion

        here = writable_project()
        settings = read_config(here, None, None)
        for line in promotion.reconcile(here):
            print(f"megu: {line}", file=sys.stderr)
        if approve and reject:
            raise typer.BadParameter("--approve and --reject exclude each other")
        if approve or reject:
            said = promotion.Approval(approver=approver, rationale=rationale, evidence=evidence)
            if reject:
                event = promotion.reject(here, settings, said, version)
                print(json.dumps(event.to_json()) if as_json else f"rejected: version {event.facts['version']}")
                return
            _print_moved(promotion.promote(here, settings, said, version), as_json)
            _follow(here, settings)
            return
        found = promotion.inspect_candidate(here, settings, version)
        if promotion.automatic(settings, found):
            _print_moved(promotion.promote(here, settings, promotion.by_policy(found), found.version), as_json)
            _follow(here, settings)
            return
        _print_candidate(found, as_json)

    @app.command()
    def rollback(
        version: Annotated[str | None, typer.Argument(help="The version's number (default: the previous champion).")] = None,
        approver: Approver = "",
        rationale: Rationale = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Make an earlier version the champion again, unless it knows data that a request wants forgotten."""
        from megu.promotion import moves as promotion

        here = writable_project()
        for line in promotion.reconcile(here):
            print(f"megu: {line}", file=sys.stderr)
        settings = read_config(here, None, None)
        _print_moved(promotion.rollback(here, settings, approver, rationale, version), as_json)
        _follow(here, settings)


def _follow(here: Project, settings: Config) -> None:
    """Do what follows a promotion, reported on standard error: whatever the outcome, the promotion stands."""
    from megu.serving import follow

    done = follow.follow(here, settings.registry.name, settings.promotion)
    for line in follow.said(done):
        print(f"megu: {plain(line)}", file=sys.stderr)


def _print_moved(moved: Moved, as_json: bool) -> None:
    if as_json:
        facts = {"name": moved.name, "champion": moved.version, "before": moved.before, "already": moved.already}
        print(json.dumps({**facts, "fulfilled": moved.fulfilled}))
        return
    before = f" (before it: version {moved.before})" if moved.before else ""
    print(f"champion: models:/{moved.name}/{moved.version}{', as it was already' if moved.already else before}")
    if moved.fulfilled:
        print(f"requests promoted with it: {', '.join(moved.fulfilled)}")


def _print_candidate(found: Candidate, as_json: bool) -> None:
    from megu.evaluation.text import gate_rows
    from megu.promotion import moves as promotion

    rows: list[dict[str, Any]] = gate_rows(found.verdict.rules)
    if as_json:
        print(
            json.dumps(
                {
                    "model": str(found),
                    "champion": found.champion,
                    "evidence": found.seal,
                    "gate": found.verdict.decision,
                    "rules": rows,
                    "obstacles": found.obstacles,
                },
                indent=2,
            )
        )
        return
    print(f"{found}: {plain(found.headline)}")
    print(f"champion: {f'version {found.champion}' if found.champion else 'none'}")
    print(f"evidence: {found.seal}")
    print(f"gate: {found.verdict.decision}")
    for row in rows:
        print(f"  {row['rule']}: {row['']} (found {row['found']}, allowed {row['allowed']}): {row['why']}")
    if found.is_champion:
        print("it is the champion")
    elif found.obstacles:
        print(f"cannot be promoted: {'; '.join(found.obstacles)}")
    else:
        print(f"waits for a person: {promotion.approve_with(found)}")
