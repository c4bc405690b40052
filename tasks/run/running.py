"""What every flow run of ours needs around its own work: a name by which others know whether it is alive, and an orderly end.

`ours` decorates the flows. `from_terminal` surrounds one started by a person, in which Ctrl-C must work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, State, StateType
from prefect.context import FlowRunContext, TagsContext
from prefect.events.worker import EventsWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect.states import Cancelled, Crashed

from megu import tracking
from megu.core import sources
from megu.core.files import cleanup, liveness
from megu.core.processes import interrupt
from megu.core.project import Project, find
from megu.servers import services
from megu.tracking import orphans
from tasks.prefect import temporary_server

F = TypeVar("F", bound=Callable[..., Any])

#: The prefix of a flow run's tag for its process: followed by a name of `megu.core.files.liveness`.
PROCESS = "megu.process:"
STOPPED = "A person or the system stopped it. The next run continues from what was finished."
DIED = "Its process ended without notice. The next run continues from what was finished."
UNSAID = "Its flow run has ended; the report that it had ended, too, did not reach the server in time."
_OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def ours(function: F) -> F:
    """Decorate a flow's function: first clean up what dead processes have left; mark a stopped run as cancelled."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        project = find()
        sources.remember(project.sources)
        _claim(project)
        recover(project)
        with interrupt.handling(), _cancelled_when_stopped(), _untagged():
            result = function(*arguments, **named)
        sources.save(project.sources)
        return result

    return run  # type: ignore[return-value]


@contextmanager
def from_terminal(meanwhile: Callable[[], None] | None = None) -> Iterator[None]:
    """Surround a flow that a person has started (inside `megu.core.processes.interrupt.guarding`): when it is stopped, Prefect and MLflow
    are told.

    meanwhile: what to do (importing, say) while Prefect's temporary server starts, if one will certainly be needed.
    """
    project = find()
    temporary_server.tether()
    name = _name(project)
    interrupt.on_stop(functools.partial(_stop, name))
    if meanwhile is not None:
        with temporary_server.starting():
            meanwhile()
    # Heartbeats are for the automations that watch deployments; the end of a run would wait up to a second for the thread that sends them.
    with tags(PROCESS + name), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def as_program(flow: Callable[[], Any], meanwhile: Callable[[], None] | None = None) -> None:
    """Run a flow as ``python -m flows.…`` does. meanwhile: as for `from_terminal`."""
    with interrupt.guarding(), from_terminal(meanwhile):
        flow()


def recover(project: Project) -> None:
    """Close what dead processes of the project have begun, in Prefect and in MLflow, and remove what they have left on disk."""
    cleanup.sweep(project)
    server = _server(project)
    gone = [name for name in liveness.dead(project.home) if liveness.note_of(project.home, name) == server]
    if gone:
        orphans.close(tracking.client(project.home), project.home)
    with get_client(sync_client=True) as client:
        _end_unsaid(client)
        for name in gone:
            _close(client, name, Crashed(message=DIED))
            liveness.forget(project.home, name)


def _name(project: Project) -> str:
    return liveness.hold(project.home, _server(project))


def _server(project: Project) -> str:
    """Return the Prefect server that records a process's runs; empty for the project's own, whether `megu up` or a flow serves it."""
    address = PREFECT_API_URL.value() or ""
    return "" if address == services.endpoints(project.home).prefect_api else address


def _claim(project: Project) -> None:
    """Record in the flow run that this process runs it now, instead of the process before the run was suspended."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run, own = context.flow_run, PROCESS + _name(project)
    if own not in run.tags:
        run.tags = [tag for tag in run.tags if not tag.startswith(PROCESS)] + [own]
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, tags=run.tags)


@contextmanager
def _untagged() -> Iterator[None]:
    """Leave the process's tag to the flow run only: for each tag of a task run Prefect asks its server for a limit, twice for each
    task."""
    with TagsContext(current_tags={tag for tag in TagsContext.get().current_tags if not tag.startswith(PROCESS)}):
        yield


@contextmanager
def _cancelled_when_stopped() -> Iterator[None]:
    """Inside a flow run, mark it as cancelled when it is stopped: Prefect itself would call it crashed."""
    try:
        yield
    except interrupt.Stopped:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        with get_client(sync_client=True) as client:
            # Prefect does not change a run that already has a final state.
            context.flow_run.state = client.set_flow_run_state(
                context.flow_run.id, Cancelled(message=STOPPED), force=True
            ).state
        raise


def _stop(name: str) -> None:
    """Close what this process has begun and not closed during unwinding; then end the temporary server."""
    for run in list(tracking.unfinished):
        with suppress(Exception):
            run.finish("KILLED")
    if PREFECT_API_URL.value() or temporary_server.running():
        # Do not wait for a server that does not answer.
        with suppress(Exception), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            EventsWorker.drain_all(timeout=0.5, at_exit=True)  # send the tasks' pending events
            with get_client(sync_client=True) as client:
                _close(client, name, Cancelled(message=STOPPED))
    temporary_server.end(patience=0.3)


def _end_unsaid(client: SyncPrefectClient) -> None:
    """End the task runs of our ended flow runs in the same state: the end of a task is reported to the server later, and a temporary
    server may be gone before it has recorded the last one."""
    ended = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))))
    open_tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN)))
    late = client.read_task_runs(flow_run_filter=ended, task_run_filter=open_tasks)
    if not late:
        return
    their = FlowRunFilter(id=FlowRunFilterId(any_=[task.flow_run_id for task in late if task.flow_run_id]))
    ended_as = {
        run.id: run.state
        for run in client.read_flow_runs(flow_run_filter=their)
        if run.state is not None and any(tag.startswith(PROCESS) for tag in run.tags)
    }
    for task in late:
        if task.flow_run_id in ended_as:
            client.set_task_run_state(task.id, State(type=ended_as[task.flow_run_id].type, message=UNSAID), force=True)


def _close(client: SyncPrefectClient, name: str, state: State[Any]) -> None:
    """End the unfinished flow runs of a process, and their task runs."""
    of = FlowRunFilterTags(all_=[PROCESS + name])
    open_runs = FlowRunFilter(tags=of, state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)))
    for run in client.read_flow_runs(flow_run_filter=open_runs):
        client.set_flow_run_state(run.id, state, force=True)
    open_tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN)))
    for task in client.read_task_runs(flow_run_filter=FlowRunFilter(tags=of), task_run_filter=open_tasks):
        client.set_task_run_state(task.id, state, force=True)
