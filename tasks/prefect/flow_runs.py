"""Flow runs that Prefect takes for running or waiting, though their process is dead or their question already answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from megu.config.redaction import redact_settings
from megu.core.project import Project

#: The tag of our deployments, and so of their runs.
TAG = "megu"
#: For so long Prefect's server keeps the slot of its deployment for a run that has not begun, where the deployment says nothing else.
GRACE_S = 300.0
#: What `withdraw` leaves in a run, by which it can be told from one that a person cancelled.
WITHDRAWN = "Nothing is to be decided any more: no request waits for this version."


def _ours(state: StateType) -> FlowRunFilter:
    """The runs of our deployments in a state of this type."""
    return FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])), tags=FlowRunFilterTags(all_=[TAG])
    )


def gone(run: str) -> bool:
    """Whether nobody can answer the flow run that asks for an approval, since it crashed, failed or was withdrawn. A person who cancels one
    has answered.
    """
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run)).state
        except ObjectNotFound:
            return True
    return state is not None and (state.is_crashed() or state.is_failed() or state.message == WITHDRAWN)


def close_lost(now: datetime) -> list[str]:
    """Mark as crashed the runs of our deployments that a worker took and lost before they began; their names.

    The automation "a run never began" does so sooner, but not for a run that was planned less than five minutes before it began: Prefect's
    server holds such a run's events back from automations, because they are to follow the one of the plan, which it never sends
    (Prefect 3.8, `prefect.server.events.ordering`). Here the slot is no longer the run's: it is past its grace.
    """
    with get_client(sync_client=True) as client:
        lost = [
            run for run in client.read_flow_runs(flow_run_filter=_ours(StateType.PENDING)) if _past_its_grace(client, run, now)
        ]
        for run in lost:
            client.set_flow_run_state(
                run.id, Crashed(message="A worker took it and it never began. The next run does its work.")
            )
    return [run.name for run in lost]


def withdraw(runs: Collection[str]) -> list[str]:
    """Cancel those of the runs that are suspended: nobody needs to answer them any more. Returns their names."""
    with get_client(sync_client=True) as client:
        suspended = client.read_flow_runs(flow_run_filter=_ours(StateType.PAUSED)) if runs else []
        settled = [run for run in suspended if str(run.id) in runs]
        for run in settled:
            client.set_flow_run_state(run.id, Cancelled(message=WITHDRAWN))
    return [run.name for run in settled]


def _past_its_grace(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    assert run.state is not None
    options = client.read_deployment(run.deployment_id).concurrency_options if run.deployment_id else None
    grace = options.grace_period_seconds if options and options.grace_period_seconds is not None else GRACE_S
    return now - run.state.timestamp > timedelta(seconds=grace)


def redact_call(project: Project, params: str, settings: Sequence[str] | None) -> tuple[str, list[str]]:
    """Return what a flow is called with, without what names samples (`megu.config.redaction.redact_settings`).

    For a flow that Prefect itself has called, as from its pages: the run's parameters are changed, so that nobody reads them there from now on.
    """
    named, changes = redact_settings(project, project.root / params, settings or ())
    if changes == list(settings or ()):
        return params, changes
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        shown = {**context.flow_run.parameters, "params": str(named), "settings": changes}
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, parameters=shown)
    return str(named), changes
