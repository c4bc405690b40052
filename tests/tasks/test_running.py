"""What a dead process began is closed in Prefect by the next run; what lives, or is another server's, is left alone."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from prefect import flow, tags, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed, Crashed, Failed, Running, State

from megu.core.files import liveness
from megu.core.processes import interrupt
from megu.core.project import Project
from tasks.run import running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]


@task
def anything() -> None: ...


@flow(name="begun")
def begun() -> None: ...


def at_work(client: SyncPrefectClient, name: str) -> tuple[UUID, UUID]:
    """A flow run of the process of this name, and a task run in it, as a kill leaves them."""
    run = client.create_flow_run(begun, state=Running(), tags=[running.PROCESS + name]).id
    return run, client.create_task_run(anything, run, uuid4().hex, state=Running()).id


def test_a_dead_process_has_its_runs_closed_and_a_living_one_has_not(project: Project) -> None:
    server = running._server(project)
    folder = project.home / "live"
    folder.mkdir(parents=True)
    (folder / "dead").write_text(server)
    (folder / "elsewhere").write_text("http://another.server/api")
    names = ["dead", "elsewhere", liveness.hold(project.home, server)]
    with get_client(sync_client=True) as client:
        begun_by = {name: at_work(client, name) for name in names}
        running.recover(project)
        states = {
            name: (client.read_flow_run(run).state, client.read_task_run(of).state) for name, (run, of) in begun_by.items()
        }
    crashed, *others = ([state.type.value for state in pair if state] for pair in states.values())
    assert crashed == ["CRASHED", "CRASHED"]
    assert others == [["RUNNING", "RUNNING"], ["RUNNING", "RUNNING"]]
    assert liveness.dead(project.home) == ["elsewhere"]
    liveness.release()


@pytest.mark.parametrize("end", [Completed(), Crashed(), Failed()], ids=lambda state: str(state.type.value))
def test_a_task_whose_end_was_not_noted_ends_as_its_run_did_and_nobody_elses_does(project: Project, end: State) -> None:
    with get_client(sync_client=True) as client:
        run, late = at_work(client, "ended")
        theirs = client.create_flow_run(begun, state=Running(), tags=["another's"]).id
        other = client.create_task_run(anything, theirs, uuid4().hex, state=Running()).id
        for ended in (run, theirs):
            client.set_flow_run_state(ended, end, force=True)
        running.recover(project)
        states = [client.read_task_run(one).state for one in (late, other)]
    assert [state.type.value for state in states if state] == [end.type.value, "RUNNING"]
    assert states[0]
    assert states[0].message == running.UNSAID


def test_a_stopped_run_is_cancelled_and_belongs_to_the_process_that_ran_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    seen: list[UUID] = []

    @flow(name="stopped")
    @running.ours
    def stopped() -> None:
        context = FlowRunContext.get()
        assert context
        assert context.flow_run
        seen.append(context.flow_run.id)
        raise interrupt.Stopped

    with pytest.raises(BaseException, match="stopped it"):
        stopped()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(seen[0])
    assert run.state
    assert (run.state.type.value, run.state.message) == ("CANCELLED", running.STOPPED)
    assert run.tags == [running.PROCESS + liveness.hold(project.home)]
    liveness.release()


def test_only_the_flow_run_says_which_process_it_is_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect asks its server about a limit for each tag of a task run."""
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    seen: list[tuple[list[str], set[str]]] = []

    @task(persist_result=False)
    def look() -> None:
        inside, around = TaskRunContext.get(), FlowRunContext.get()
        assert inside
        assert around
        assert around.flow_run
        seen.append((around.flow_run.tags, set(inside.task_run.tags)))

    @flow(name="tagged")
    @running.ours
    def tagged() -> None:
        look()

    own = running.PROCESS + liveness.hold(project.home)
    with tags(own, "mine"):
        tagged()
    ((of_flow, of_task),) = seen
    assert set(of_flow) == {own, "mine"}
    assert of_task == {"mine"}
    liveness.release()
