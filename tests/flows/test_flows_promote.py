"""The approval through Prefect: a real server, MLflow on SQLite, and an answer given by Prefect's own API."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import REPOSITORY, Finished
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from prefect.states import Pending
from promoting import aliases, copied, verified

from flows.promote import promote
from megu.config import tree as config
from megu.data import arrays
from megu.lineage.promoted.champions import CHAMPION
from megu.promotion import moves as promotion
from megu.requests.inbox import Inbox
from megu.tracking import lineage, registry

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


def deployed(client: SyncPrefectClient) -> Any:
    """A run of the flow, by a deployment, as ``prefect deploy`` makes it from prefect.yaml."""
    client.create_work_pool(WorkPoolCreate(name="promotions", type="process"))
    deployment = client.create_deployment(
        flow_id=client.create_flow(promote),
        name="promote",
        entrypoint="flows/promote.py:promote",
        work_pool_name="promotions",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}],
    )
    return client.create_flow_run_from_deployment(deployment).id


def carried_on(client: SyncPrefectClient, run: Any) -> Any:
    """The run after it was carried on as far as it goes, in this process; a worker's own does it in tests/requests/test_service.py."""
    assert client.read_flow_run(run).state.is_scheduled()
    client.set_flow_run_state(run, Pending())
    with suppress(Pause):  # where it waits
        run_flow(promote, flow_run=client.read_flow_run(run))
    return client.read_flow_run(run)


def test_a_person_approves_through_prefects_api_and_the_champion_serves(
    finished: Finished, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = copied(finished, tmp_path / "project")
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    found, asked = promotion.inspect_candidate(project, config.load(project.params)), verified(project, "Sneaker", "2")
    with get_client(sync_client=True) as client:
        run = deployed(client)
        waiting = carried_on(client, run).state
        assert (waiting.name, waiting.state_details.pause_key) == ("Suspended", "approval-1")
        assert aliases(project) == {}

        answer = {"decision": "approve", "approver": "A. Approver", "rationale": "evidence-holds", "evidence": "0" * 64}
        resume_flow_run(run, run_input=answer)
        waiting = carried_on(client, run).state
        assert (waiting.name, waiting.state_details.pause_key) == ("Suspended", "approval-2")
        assert aliases(project) == {}, "approved was other evidence than there is"
        page = client.read_flow_run_input(run, waiting.state_details.run_input_keyset["description"])
        assert "Not accepted: the approval is for the evidence 000000000000…" in page
        assert found.seal in page

        resume_flow_run(run, run_input={**answer, "evidence": found.seal})
        assert carried_on(client, run).state.name == "Completed"
        written = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
        assert any(f"Requests promoted with it: {asked}." in str(artifact.data) for artifact in written)
    assert Inbox(project).entry(asked).state == "promoted"
    assert aliases(project) == {CHAMPION: "2"}
    (moved,) = project.ledger.events(kind="champion.moved")
    assert (moved.facts["approver"], moved.facts["seal"], moved.facts["automatic"]) == ("A. Approver", found.seal, False)
    images = np.asarray(arrays.load(project.data("slice")).test.images[:3])
    answers = registry.serve(lineage.reach(project.home), "models:/megu@champion", images)
    assert answers.shape == (3, 10)
