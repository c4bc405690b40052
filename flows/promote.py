"""The promotion flow: it waits, suspended and without a worker, until somebody answers the form in the Prefect UI.

It needs a deployment (prefect.yaml has it): a worker resumes a suspended run.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from megu.config import tree as configuration
from megu.core.files.exclusion import while_no_purge
from megu.core.project import find
from megu.promotion import moves as promotion
from tasks.prefect import flow_runs, run_names
from tasks.prefect.approval import decide
from tasks.run.running import ours


@flow(
    name="promote",
    flow_run_name=run_names.promote,
    description="Ask a person whether the challenger may become the champion, and promote it if so.",
    persist_result=True,
)
@while_no_purge
@ours
def promote(version: str | None = None, params: str = "params.yaml", settings: list[str] | None = None) -> dict[str, Any]:
    """version: its number; None for the challenger. params, settings: as for the unlearning flow."""
    project = find()
    params, settings = flow_runs.redact_call(project, params, settings)
    promotion.reconcile(project)
    return decide(project, configuration.load(project.root / params, settings), version)
