"""The cache of a project in which runs have finished: what a dossier, here or in MLflow alone, and a registered version need stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from lineage_fixtures import Finished

from megu import tracking
from megu.core.project import Project
from megu.erasure import cache
from megu.erasure.policy import cached_results
from megu.lineage.verify import run as verify

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


@pytest.fixture
def copy(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project as it was when both runs had finished; MLflow's files are where they were."""
    project = Project(shutil.copytree(finished.pristine, tmp_path / "project", symlinks=True))
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project


def verified(project: Project, run: str) -> dict[str, bool | None]:
    return {check.name: check.holds for check in verify.verify(run, project).checks}


def test_what_a_dossier_or_a_living_version_needs_stays(copy: Project, finished: Finished) -> None:
    path, result = next((path, result) for path, result in cached_results(copy) if result.stage == "unlearn")
    extra = copy.store.put_bytes("safetensors", b"of a benchmark's cell, of which no dossier knows")
    record = json.loads(path.read_bytes())
    whole = {**result.to_json(), "files": {"weights": extra.to_json()}}
    (copy.results / "unlearn-0").write_text(json.dumps({**record, "result": json.dumps(whole)}))
    before = {run.mlflow_run_id: verified(copy, run.mlflow_run_id) for run in (finished.older, finished.newer)}
    assert all(found["files"] and found["cached results"] for found in before.values())

    done = cache.prune(copy, 0, None)
    assert done.results == (copy.results / "unlearn-0",)
    assert copy.store.path(extra) in done.files
    assert {run: verified(copy, run) for run in before} == before

    # Its own folder lost, the dossier is read where MLflow has it, as long as the version is there.
    run = finished.older.mlflow_run_id
    shutil.rmtree(copy.dossiers / run)
    assert cache.plan(copy, 0, None).results == ()
    assert finished.older.model_version is not None
    name, _, number = finished.older.model_version.removeprefix("models:/").rpartition("/")
    tracking.client(copy.home).delete_model_version(name, number)
    gone = cache.prune(copy, 0, None)
    assert {path.name.rpartition("-")[0] for path in gone.results} >= {"unlearn", "condensed", "evaluation"}
    newer = finished.newer.mlflow_run_id
    assert {name: verified(copy, newer)[name] for name in ("files", "cached results")} == {
        "files": True,
        "cached results": True,
    }
