"""Flow runs whose process is no more, on a real Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.states import Cancelled, Crashed, Failed, Paused, Pending, Running, Scheduled, Submitting

from flows.process import process
from flows.promote import promote
from tasks.flow_runs import GRACE_S, TAG, died, mark_lost

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]


def test_an_approval_whose_run_died_can_be_told_from_one_that_waits() -> None:
    with get_client(sync_client=True) as client:
        found = {
            state.name: died(str(client.create_flow_run(promote, state=state).id))
            for state in (Crashed(), Failed(), Pending(), Paused(name="Suspended"), Cancelled())
        }
    assert found == {"Crashed": True, "Failed": True, "Pending": False, "Suspended": False, "Cancelled": False}
    assert died("00000000-0000-4000-8000-000000000000"), "of a server that was made anew"


def test_a_run_that_never_began_is_marked_when_its_slot_is_no_longer_its_own() -> None:
    states = (Pending(), Submitting(), Scheduled(), Running(), Paused(name="Suspended"))
    with get_client(sync_client=True) as client:
        ours = {state.name: client.create_flow_run(process, state=state, tags=[TAG]) for state in states}
        theirs = client.create_flow_run(process, state=Pending(), tags=["another"])
        slow = client.create_deployment(
            client.create_flow(process), name="slow", concurrency_options=ConcurrencyOptions(
                collision_strategy="ENQUEUE", grace_period_seconds=900  # type: ignore[arg-type]
            )
        )  # fmt: skip
        comes = client.create_flow_run_from_deployment(slow, state=Pending(), tags=[TAG])

        now = datetime.now(UTC)
        assert mark_lost(now) == []
        late = now + timedelta(seconds=GRACE_S + 1)
        assert set(mark_lost(late)) == {ours["Pending"].name, ours["Submitting"].name}
        assert mark_lost(late) == []
        assert {name: client.read_flow_run(run.id).state_name for name, run in ours.items()} == {
            "Pending": "Crashed",
            "Submitting": "Crashed",
            "Scheduled": "Scheduled",
            "Running": "Running",
            "Suspended": "Suspended",
        }
        assert client.read_flow_run(theirs.id).state_name == "Pending"
        assert mark_lost(now + timedelta(seconds=901)) == [comes.name], "its deployment gives it longer"


def test_our_runs_are_told_by_the_tag_of_our_deployments() -> None:
    deployments = yaml.safe_load((Path(__file__).resolve().parents[2] / "prefect.yaml").read_text())["deployments"]
    assert [deployment["tags"] for deployment in deployments] == [[TAG]] * len(deployments)
