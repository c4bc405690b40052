"""Flow runs whose process is dead, on a real Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.states import Cancelled, Crashed, Failed, Paused, Pending, Running, Scheduled, Submitting
from promoting import verified

from flows.process import process
from flows.promote import promote
from megu.core.project import Project
from megu.requests.inbox import Inbox
from tasks.prefect.flow_runs import GRACE_S, TAG, WITHDRAWN, close_lost, gone
from tasks.records.processing import take_back

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]


def test_an_approval_that_nobody_can_give_any_more_can_be_told_from_one_that_waits() -> None:
    states = (Crashed(), Failed(), Pending(), Paused(name="Suspended"), Cancelled(message=WITHDRAWN), Cancelled(message="No."))
    with get_client(sync_client=True) as client:
        found = [gone(str(client.create_flow_run(promote, state=state).id)) for state in states]
    assert found == [True, True, False, False, True, False]
    assert gone("00000000-0000-4000-8000-000000000000"), "of a server that was made anew"


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
        assert close_lost(now) == []
        late = now + timedelta(seconds=GRACE_S + 1)
        assert set(close_lost(late)) == {ours["Pending"].name, ours["Submitting"].name}
        assert close_lost(late) == []
        assert {name: client.read_flow_run(run.id).state_name for name, run in ours.items()} == {
            "Pending": "Crashed",
            "Submitting": "Crashed",
            "Scheduled": "Scheduled",
            "Running": "Running",
            "Suspended": "Suspended",
        }
        assert client.read_flow_run(theirs.id).state_name == "Pending"
        assert close_lost(now + timedelta(seconds=901)) == [comes.name], "its deployment gives it longer"


def test_a_form_is_taken_back_when_no_request_waits_for_its_version(project: Project) -> None:
    inbox, suspended = Inbox(project), Paused(name="Suspended")
    waits, put_back = verified(project, "Sneaker", "2"), verified(project, "Bag", "1")
    with get_client(sync_client=True) as client:
        runs = {
            name: client.create_flow_run(promote, state=state, tags=[TAG])
            for name, state in {"1": suspended, "2": suspended, "by hand": suspended, "0": Running()}.items()
        }
        for version in ("0", "1", "2"):
            inbox.ledger.append("approval.asked", f"megu/{version}", {"seal": "s", "flow_run": str(runs[version].id)})
        assert take_back(inbox) == []  # version 0 is being decided
        inbox.move([put_back], "accepted", {})
        assert take_back(inbox) == [runs["1"].name]
        assert take_back(inbox) == []
        assert gone(str(runs["1"].id)), "asked again, should that version be verified once more"
        assert {name: client.read_flow_run(run.id).state_name for name, run in runs.items()} == {
            "0": "Running",
            "1": "Cancelled",
            "2": "Suspended",
            "by hand": "Suspended",
        }
        inbox.move([waits], "approved", {})
        assert take_back(inbox) == [runs["2"].name]


def test_our_runs_are_told_by_the_tag_of_our_deployments() -> None:
    deployments = yaml.safe_load((Path(__file__).resolve().parents[2] / "prefect.yaml").read_text())["deployments"]
    assert [deployment["tags"] for deployment in deployments] == [[TAG]] * len(deployments)
