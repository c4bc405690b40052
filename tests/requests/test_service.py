"""The whole service on real servers, once without a kill; the kills at every stage are by hand (docs/operations.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import printed


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_schedule_fires_and_a_request_goes_from_received_to_promoted_by_an_approval_through_prefect(
    fashion_mnist_project: Path, databases: Path
) -> None:
    """Prefect server and worker, MLflow server on SQLite, each a process of its own, with the deployments of prefect.yaml."""
    first, *_ = printed("service.py", str(fashion_mnist_project / "data" / "fashion-mnist"), f"--databases={databases}")
    found = json.loads(first)
    assert found["wrong"] == []
    assert found["events"] == ["received", "accepted", "processing", "unlearned", "verified", "approved", "promoted"]
    assert (found["state"], found["champion"], found["champion_moves"]) == ("promoted", "1", 1)
    assert found["served"] == [4, 10], "class probabilities of four images, by the model behind the alias champion"
    assert (found["slots_taken"], found["running"], found["mlflow_running"]) == ({}, [], 0)
