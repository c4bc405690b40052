"""The approval through Prefect: a real server and worker, MLflow on SQLite, and an answer given by Prefect's own API."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from lineage_fixtures import REPOSITORY, Finished
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.flow_runs import resume_flow_run
from prefect.settings import PREFECT_API_URL
from promoting import aliases, copied, verified

from megu.config import tree as config
from megu.core.project import Project
from megu.data import arrays
from megu.lineage.champions import CHAMPION
from megu.promotion import moves as promotion
from megu.requests.inbox import Inbox
from megu.tracking import lineage, registry

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]

POOL = "promotions"
#: On a machine with nothing else to do each step takes seconds.
PATIENCE_S = 240.0


@contextmanager
def worker(project: Project, log: Path) -> Iterator[psutil.Process]:
    """A worker for the pool, as ``prefect worker start`` runs it."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "MEGU_PROJECT": str(project.root),
        "PYTHONPATH": str(REPOSITORY),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
            env=environment,
            cwd=project.root,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def deployed(client: SyncPrefectClient) -> Any:
    """A run of the flow, by a deployment, as ``prefect deploy`` makes it from prefect.yaml."""
    from flows.promote import promote

    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    deployment = client.create_deployment(
        flow_id=client.create_flow(promote),
        name="promote",
        entrypoint="flows/promote.py:promote",
        work_pool_name=POOL,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}],
    )
    return client.create_flow_run_from_deployment(deployment).id


def until(client: SyncPrefectClient, run: Any, name: str, log: Path, key: str = "") -> Any:
    """The run, as soon as its state has this name (and, suspended, this key)."""
    end, found = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < end:
        found = client.read_flow_run(run)
        assert found.state is not None
        if found.state.name == name and (not key or found.state.state_details.pause_key == key):
            return found
        failed = found.state.is_final()
        assert not failed, f"{found.state} instead of {name}: {log.read_text(errors='replace')[-2000:]}"
        time.sleep(0.2)
    raise AssertionError(f"{found.state if found else 'nothing'} instead of {name}: {log.read_text(errors='replace')[-2000:]}")


def test_a_person_approves_through_prefects_api_and_the_champion_serves(
    finished: Finished, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project, log = copied(finished, tmp_path / "project"), tmp_path / "worker.log"
    found, asked = promotion.look(project, config.load(project.params)), verified(project, "Sneaker", "2")
    with get_client(sync_client=True) as client, worker(project, log) as working:
        run = deployed(client)
        until(client, run, "Suspended", log, "approval-1")
        end = time.monotonic() + 60
        while working.children(recursive=True) and time.monotonic() < end:
            time.sleep(0.2)
        assert working.children(recursive=True) == [], "a run that waits occupies no process"
        assert aliases(project) == {}

        answer = {"decision": "approve", "approver": "A. Approver", "rationale": "evidence-holds", "evidence": "0" * 64}
        resume_flow_run(run, run_input=answer)
        asked_again = until(client, run, "Suspended", log, "approval-2")
        assert aliases(project) == {}, "approved was other evidence than there is"
        keyset = asked_again.state.state_details.run_input_keyset
        page = client.read_flow_run_input(run, keyset["description"])
        assert "Not accepted: the approval is for the evidence 000000000000…" in page
        assert found.seal in page

        resume_flow_run(run, run_input={**answer, "evidence": found.seal})
        until(client, run, "Completed", log)
        written = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
        assert any(f"Requests promoted with it: {asked}." in str(artifact.data) for artifact in written)
    assert Inbox(project).entry(asked).state == "promoted"
    assert aliases(project) == {CHAMPION: "2"}
    (moved,) = project.ledger.events(kind="champion.moved")
    assert (moved.facts["approver"], moved.facts["seal"], moved.facts["automatic"]) == ("A. Approver", found.seal, False)
    images = np.asarray(arrays.load(project.data("slice")).test.images[:3])
    answers = registry.serve(lineage.reach(project.home), "models:/megu@champion", images)
    assert answers.shape == (3, 10)
