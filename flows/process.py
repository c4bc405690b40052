"""The processing flow: pending requests in, out comes a model that has forgotten them and waits for approval. Made for a schedule.

If it is killed at any point, the next run continues: its requests are accepted again, and what it had computed is in the cache.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows import steps
from flows.unlearn import carry_out
from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.files.exclusion import while_no_purge
from megu.core.project import Project, find
from megu.lineage.promoted.champions import status
from megu.promotion import moves as promotion
from megu.requests import reconciling
from megu.requests.batches import batches, work_through
from megu.requests.inbox import Inbox
from megu.requests.intake import files
from megu.requests.overview import markdown, overview
from megu.serving import follow
from tasks.prefect import flow_runs
from tasks.records import ladder, processing
from tasks.run.running import as_program, ours


@flow(
    name="process",
    flow_run_name="process requests",
    description="Forget what the requests ask for, evaluate the model, ask for its approval.",
)
@while_no_purge
@ours
def process(params: str = "params.yaml", settings: list[str] | None = None) -> dict[str, Any]:
    """Process the waiting requests. params, settings: as for the unlearning flow; the forget set comes from the requests."""
    project = find()
    steps.refuse_unusable_tracking(project)
    params, settings = flow_runs.redact_call(project, params, settings)
    config = configuration.load(project.root / params, settings)
    config.for_requests()
    ladder.refuse_small_budget(project, config)
    inbox = Inbox(project)
    with processing.alone(project) as free:
        if not free:
            return {"busy": True}
        flow_runs.close_lost(datetime.now(UTC))
        promotion.reconcile(project)
        recovered = processing.recover(inbox)
        settled = reconciling.reconcile_all(inbox)
        taken = files.take(inbox, config.requests, datetime.now(UTC).date(), config.data.name)
        lanes = processing.lanes(project, config, inbox)
        accepted, rejected = processing.review(inbox, lanes)
        begun = len(inbox.ledger.events())
        work = work_through(
            batches(processing.pending(inbox, lanes, config.requests.attempts), config.requests.batch),
            lambda batch: processing.fulfil(project, lanes[batch.data], inbox, batch, carry_out),
        )
        processing.blame(inbox, work)
        asked = [processing.hand_over(project, lane, inbox, params, settings) for lane in lanes.values()]
        asked = [approval for approval in asked if approval is not None]
        processing.take_back(inbox)
        followed = follow.follow(project, config.registry.name, config.promotion)
    late = processing.overdue(inbox)
    refused = {entry.id: entry.reason for entry in inbox.entries("accepted") if entry.refused}
    seen = followed.seen.to_json() if followed.seen else None
    now = overview(project, config.registry.name, config.requests, served=seen, awaited=bool(config.promotion.served))
    create_markdown_artifact(markdown(now), key="megu-status", description="Requests, runs and champion")
    return {
        "busy": False,
        "recovered": recovered,
        "settled": settled,
        "files": {"taken": sum(not file.refused for file in taken), "refused": sum(bool(file.refused) for file in taken)},
        "accepted": accepted,
        "rejected": rejected,
        "batches": [{"batch": t.batch.id, "requests": len(t.batch.ids), "failed": t.reason} for t in work.tried],
        "rungs": ladder.said(inbox.ledger.events()[begun:]),
        "refused": refused,
        "stopped": work.stopped,
        "outage": work.outage,
        "held": {lane.data: lane.held for lane in lanes.values() if lane.held},
        "approval": asked[0] if asked else None,
        "approvals": asked,
        "served": seen,
        "closed": followed.closed,
        "troubles": followed.troubles,
        "overdue": [entry.id for entry in late],
    }


def plan(project: Project, config: Config) -> tuple[int, list[dict[str, Any]]]:
    """Return how many requests wait, and the rungs of the ladder for each batch, none if it is off. Computes nothing."""
    ladder.refuse_small_budget(project, config)
    inbox, at = Inbox(project), status(project.ledger.events(config.registry.name)).version
    waiting = len(inbox.entries("received")) + len(inbox.pending(config.requests.attempts))
    if config.promotion.ladder.when == "never":
        return waiting, []
    return waiting, ladder.plan(project, processing.from_champion(config, at))


if __name__ == "__main__":
    as_program(process)
