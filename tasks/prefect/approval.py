"""The approval that a promotion waits for: a form in the Prefect UI, and what comes of it."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from typing import Any, Literal

from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from megu.config.tree import Config
from megu.core.errors import MeguError
from megu.core.escaping import markdown
from megu.core.project import Project
from megu.evaluation.text import gate_rows
from megu.promotion import moves as promotion
from megu.promotion.moves import Candidate
from megu.serving import follow


class Decision(RunInput):
    """The form. evidence: the digest that the page shows, or its first 12 characters. rationale: as for ``megu promote``."""

    decision: Literal["approve", "reject"]
    approver: str
    rationale: str
    evidence: str


def decide(project: Project, config: Config, version: str | None) -> dict[str, Any]:
    """Promote by policy, or wait for a person as often as it takes; returns what came of it.

    A run that waits is suspended: its process ends, and the worker starts it again from the beginning when somebody has answered, so
    everything is looked at again. Each wait has a key of its own: an answered one returns its answer at once.

    Raises `MeguError` when the version cannot be promoted at all.
    """
    complaint = ""
    for wait in count(1):
        found = promotion.inspect_candidate(project, config, version)
        if found.is_champion:
            return {"outcome": "promoted", "model": str(found), "already": True}
        if found.obstacles:
            raise MeguError(f"{found} cannot be promoted: {'; '.join(found.obstacles)}", "run again to make a new challenger")
        if promotion.automatic(config, found):
            return _promoted(project, config, found, promotion.by_policy(found))
        answer = suspend_flow_run(
            wait_for_input=Decision.with_initial_data(description=described(found, complaint)), key=f"approval-{wait}"
        )
        try:
            approval = promotion.Approval(approver=answer.approver, rationale=answer.rationale, evidence=answer.evidence)
            if answer.decision == "reject":
                promotion.reject(project, config, approval, found.version)
                return {"outcome": "rejected", "model": str(found), "by": answer.approver}
            return _promoted(project, config, found, approval)
        except MeguError as error:
            # The evidence changed, or the form was filled in wrongly: asked again, with the reason on the page.
            complaint = str(error)
    raise AssertionError("the counter never ends")


def _promoted(project: Project, config: Config, found: Candidate, approval: promotion.Approval) -> dict[str, Any]:
    moved = promotion.promote(project, config, approval, found.version)
    outcome = {"outcome": "promoted", **asdict(moved), "model": str(found), "automatic": approval.automatic}
    after = follow.follow(project, config.registry.name, config.promotion)
    outcome |= {"served": after.seen.to_json() if after.seen else None, "closed": after.closed, "troubles": after.troubles}
    more = "".join(f"\n\n{markdown(line)}" for line in follow.said(after))
    followed = f" Requests promoted with it: {', '.join(moved.fulfilled)}." if moved.fulfilled else ""
    create_markdown_artifact(
        f"**{markdown(str(found))}** is the champion, approved by {'the policy' if approval.automatic else markdown(approval.approver)}"
        f"{f'; before it version {moved.before}' if moved.before else ''}. Evidence `{found.seal}`.{followed}{more}",
        key="promotion",
        description="What became of the challenger",
    )
    return outcome


def described(found: Candidate, complaint: str = "") -> str:
    """The page of the form, in Markdown."""
    rows = gate_rows(found.verdict.rules)
    lines = [
        *([f"**Not accepted: {markdown(complaint)}**", ""] if complaint else []),
        f"**{markdown(str(found))}**: {markdown(found.headline)}",
        "",
        f"Champion now: {f'version {found.champion}' if found.champion else 'none'}. Gate: **{found.verdict.decision}**.",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(map(markdown, row.values()))} |" for row in rows),
        "",
        f"Evidence (copy it into the form once you have looked at it): `{found.seal}`",
        "",
        f"Rationale: {', '.join(promotion.RATIONALES)}, or a text.",
    ]
    return "\n".join(lines)
