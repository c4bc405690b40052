"""Automations and slots on a real Prefect server."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from new_databases import PREFECT
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from megu.core.errors import MeguError

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

FILE = Path(__file__).resolve().parents[2] / "tasks" / "prefect" / "automations.yaml"


def test_automations_are_created_once_and_brought_up_to_date(tmp_path: Path) -> None:
    from tasks.prefect.automations import create

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
    from tasks.prefect.automations import _same, read

    kept, *_ = (automation for automation in read(FILE) if len(automation.trigger.expect) > 5)
    for order in islice(permutations(sorted(kept.trigger.expect)), 0, None, 50):
        other = kept.model_copy(update={"trigger": kept.trigger.model_copy(update={"expect": set(order)})})
        assert _same(kept, other)


DIED, NEVER = "megu: a run died without a word", "megu: a run never began"


@pytest.mark.parametrize(
    ("states", "marked"),
    [
        ({0: "Pending", 1: "Submitting"}, {NEVER}),
        # As a worker has it that was killed when the run's turn had come.
        ({0: "Pending", 1: "AwaitingConcurrencySlot", 30: "Pending", 31: "Submitting"}, {NEVER}),
        ({0: "Pending", 1: "Submitting", 2: "InfrastructurePending", 9: "Running", 39: "heartbeat"}, {DIED}),
        # Suspended, taken up again, killed before its first heartbeat; and killed by a worker that had just taken it up.
        ({0: "Pending", 9: "Running", 39: "heartbeat", 50: "Suspended", 60: "Pending", 62: "Running"}, {DIED}),
        ({0: "Pending", 9: "Running", 39: "heartbeat", 50: "Suspended", 60: "Pending", 62: "Submitting"}, {NEVER}),
        ({0: "Pending", 9: "Running", 39: "heartbeat", 50: "Suspended"}, set()),
        ({0: "Pending", 9: "Running", 39: "heartbeat", 50: "Completed"}, set()),
        ({0: "Pending", 1: "AwaitingConcurrencySlot"}, set()),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_run_that_is_no_more_is_marked(
    states: dict[int, str], marked: set[str], databases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of a run's states, in seconds from the first, put to the very code by which Prefect's server decides."""
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import temporary_database_config

    own = shutil.copyfile(databases / PREFECT, tmp_path / PREFECT)  # at a server's own, the two would wait for each other
    with temporary_database_config(AioSqliteConfiguration(f"sqlite+aiosqlite:///{own}")):
        assert asyncio.run(fired(states, monkeypatch)) == marked


async def fired(states: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The automations that act in the ten minutes after a run's last state."""
    from prefect.server.database import provide_database_interface
    from prefect.server.events import triggers
    from prefect.server.events.schemas.automations import Automation, Firing
    from prefect.server.events.schemas.events import ReceivedEvent

    from tasks.prefect.automations import read

    acted: set[str] = set()

    async def act(firing: Firing) -> None:
        acted.add(firing.trigger.automation.name)

    monkeypatch.setattr(triggers, "act", act)
    made = [Automation(**entry.model_dump(), id=uuid4()) for entry in read(FILE) if entry.name in (DIED, NEVER)]
    triggers.clear_loaded_automations()
    database = provide_database_interface()
    async with database.session_context(begin_transaction=True) as session:
        session.add_all(database.Automation(**automation.model_dump()) for automation in made)
    for automation in made:
        triggers.load_automation(automation)
    begun, run = datetime.now(UTC), {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"}
    tagged = {"prefect.resource.id": "prefect.tag.megu", "prefect.resource.role": "tag"}
    due = dict.fromkeys(triggers.triggers, begun)
    for second in range(max(states) + 600):
        now = begun + timedelta(seconds=second)
        # As `evaluate_proactive_triggers` does by the clock: each trigger when it asked to be looked at again, no sooner.
        for key, trigger in triggers.triggers.items():
            if due[key] <= now:
                due[key] = await triggers.proactive_evaluation(trigger, now)  # type: ignore[arg-type]
        if second in states:
            name = f"prefect.flow-run.{states[second]}"
            event = ReceivedEvent(occurred=now, received=now, event=name, resource=run, related=[tagged], id=uuid4())
            await triggers.reactive_evaluation(event)
    triggers.clear_loaded_automations()
    return acted


def test_a_block_or_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    from tasks.prefect.automations import create

    with pytest.raises(MeguError, match="no block slack-webhook/nobody"):
        create(FILE, "slack-webhook/nobody")
    with pytest.raises(MeguError, match="cannot be used"):
        create(tmp_path / "nowhere.yaml")


def test_a_slot_is_held_for_the_block_and_nobody_waits_without_a_limit() -> None:
    from tasks.prefect.slots import gpu, slot

    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu:7", limit=1))
        with slot("gpu:7"):
            assert client.read_global_concurrency_limit_by_name("gpu:7").active_slots == 1
        assert client.read_global_concurrency_limit_by_name("gpu:7").active_slots == 0
    with slot("gpu:of-nobody"), gpu("cpu"):
        pass


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
