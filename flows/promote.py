"""The promotion flow: it waits, suspended and without a worker, until somebody answers the form in the Prefect UI.

It needs a deployment (prefect.yaml has it): a suspended run is started again by a worker.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from megu import config as configuration
from megu import promotion
from megu.exclusion import while_no_purge
from megu.project import find
from tasks import flow_runs
from tasks.promotion import decide
from tasks.running import ours


@flow(
    name="promote",
    description="Ask a person whether the challenger may become the champion, and make it so.",
    persist_result=True,
)
@while_no_purge
@ours
def promote(version: str | None = None, params: str = "params.yaml", settings: list[str] | None = None) -> dict[str, Any]:
    """version: its number; None for the challenger. params, settings: as for the unlearning flow."""
    project = find()
    params, settings = flow_runs.private(project, params, settings)
    promotion.settle(project)
    return decide(project, configuration.load(project.root / params, settings), version)
