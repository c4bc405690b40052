"""Automations and slots on a real Prefect server."""

from __future__ import annotations

from itertools import islice, permutations
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from megu.errors import MeguError

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

FILE = Path(__file__).resolve().parents[2] / "deploy" / "automations.yaml"


def test_automations_are_created_once_and_brought_up_to_date(tmp_path: Path) -> None:
    from tasks.automations import create

    assert {made.done for made in create(FILE)} == {"created"}
    assert {made.done for made in create(FILE)} == {"as it was"}
    changed = yaml.safe_load(FILE.read_text())
    changed[3]["trigger"]["within"] = 120
    path = tmp_path / "automations.yaml"
    path.write_text(yaml.safe_dump(changed))
    assert [made.done for made in create(path)] == ["as it was"] * 3 + ["brought up to date", "as it was"]
    with get_client(sync_client=True) as client:
        for entry in changed:
            assert len(client.read_automations_by_name(entry["name"])) == 1


def test_the_order_of_a_triggers_events_is_no_difference() -> None:
    """Equal sets are iterated in the order in which they were filled where hashes collide, as those from a server are."""
    from tasks.automations import _same, read

    kept, *_ = (automation for automation in read(FILE) if len(automation.trigger.expect) > 5)
    for order in islice(permutations(sorted(kept.trigger.expect)), 0, None, 50):
        other = kept.model_copy(update={"trigger": kept.trigger.model_copy(update={"expect": set(order)})})
        assert _same(kept, other)


def test_a_block_or_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    from tasks.automations import create

    with pytest.raises(MeguError, match="no block slack-webhook/nobody"):
        create(FILE, "slack-webhook/nobody")
    with pytest.raises(MeguError, match="cannot be used"):
        create(tmp_path / "nowhere.yaml")


def test_a_slot_is_held_for_the_block_and_nobody_waits_without_a_limit() -> None:
    from tasks.slots import gpu, slot

    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu:7", limit=1))
        with slot("gpu:7"):
            assert client.read_global_concurrency_limit_by_name("gpu:7").active_slots == 1
        assert client.read_global_concurrency_limit_by_name("gpu:7").active_slots == 0
    with slot("gpu:of-nobody"), gpu("cpu"):
        pass


def test_an_approval_whose_run_died_can_be_told_from_one_that_waits() -> None:
    from prefect.states import Cancelled, Crashed, Failed, Paused, Pending

    from flows.promote import promote
    from tasks.processing import died

    with get_client(sync_client=True) as client:
        found = {
            state.name: died(str(client.create_flow_run(promote, state=state).id))
            for state in (Crashed(), Failed(), Pending(), Paused(name="Suspended"), Cancelled())
        }
    assert found == {"Crashed": True, "Failed": True, "Pending": False, "Suspended": False, "Cancelled": False}
    assert died("00000000-0000-4000-8000-000000000000"), "of a server that was made anew"


def test_a_schedule_plans_runs() -> None:
    """With SQLAlchemy 2.1 the server of Prefect 3.8 plans none, and only its log says so (pyproject.toml)."""
    from datetime import timedelta

    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    from flows.process import process

    with get_client(sync_client=True) as client:
        schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)), slug="hourly", active=True)
        made = client.create_deployment(client.create_flow(process), name="planned", schedules=[schedule])
        # What the server's scheduler does every few seconds.
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": made}, json={}).raise_for_status()
        planned = [run for run in client.read_flow_runs(limit=200) if run.deployment_id == made]
    assert planned
    assert all(run.state_name == "Scheduled" for run in planned)
