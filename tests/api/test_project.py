"""The public project: what it hands to the rooms that do the work, and what it refuses. The real flow has its own tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import megu
from megu.core.errors import MeguError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text("data: {name: toy}\nforget: {classes: [Bag]}\ndevice: cpu\n")
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "MEGU_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what Prefect and MLflow are pointed at stays in here
    return tmp_path


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In place of the flow: what it was called with, and the project that it would find."""
    called: list[Any] = []

    def unlearn(params: str, settings: list[str]) -> str:
        called.append((params, settings, os.environ.get("MEGU_PROJECT")))
        return "a summary"

    monkeypatch.setitem(sys.modules, "flows.unlearn", SimpleNamespace(unlearn=unlearn))
    monkeypatch.setitem(sys.modules, "tasks.prefect", SimpleNamespace(temporary_server=SimpleNamespace(tether=lambda: None)))
    monkeypatch.setattr("megu.servers.databases.ensure_own_prefect", lambda home: None)
    monkeypatch.setattr("megu.servers.ready.refuse_unusable", lambda project: None)
    return called


def test_a_run_is_the_flow_of_this_project_with_these_changes(root: Path, flow: list[Any]) -> None:
    (root / "deeper").mkdir()
    project = megu.Project(root / "deeper")
    assert project.root == root
    assert project.run({"forget.classes": ["T-shirt/top", "no"], "seed": 3}) == "a summary"
    assert flow == [(str(root / "params.yaml"), ['forget.classes=["T-shirt/top", "no"]', "seed=3"], str(root))]
    assert "MEGU_PROJECT" not in os.environ


def test_samples_that_are_named_are_kept_from_the_flows_parameters(root: Path, flow: list[Any]) -> None:
    megu.Project(root).run({"forget.scenario": "ids", "forget.ids": ["0" * 32]})
    ((params, settings, _),) = flow
    assert settings == []
    assert Path(params).parent == root / ".megu" / "private"


@pytest.mark.parametrize(
    ("settings", "said"), [({"unlearn.stepps": 3}, "did you mean steps"), ({"device": "cuda:77"}, "CUDA devices")]
)
def test_what_is_wrong_is_refused_before_anything_runs(root: Path, flow: list[Any], settings: Any, said: str) -> None:
    with pytest.raises(MeguError, match=said):
        megu.Project(root).run(settings)
    assert flow == []


def test_where_there_is_no_project_is_said(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match=r"no params\.yaml"):
        megu.Project(tmp_path)


def test_a_request_is_taken_in_once(root: Path) -> None:
    project = megu.Project(root)
    asked = {"classes": ["Bag"], "basis": "gdpr-17-1-b", "requester": "data-subject", "reference": "DSR-2026-0142"}
    first, again = project.request(**asked), project.request(**asked)
    assert (first.new, again.new) == (True, False)
    assert first.id == again.id
    with pytest.raises(MeguError, match="basis"):
        project.request(**{**asked, "basis": "because"})


def test_verify_and_promote_say_what_there_is_not(root: Path) -> None:
    project = megu.Project(root)
    with pytest.raises(MeguError, match="nothing-here"):
        project.verify("nothing-here")
    with pytest.raises(MeguError):
        project.promote(approver="A. Person", rationale="first-model", evidence="0" * 12)
