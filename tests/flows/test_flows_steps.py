"""What every flow refuses before it computes anything, however it was started."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import bench, process, unlearn
from megu.core.errors import MeguError
from megu.core.project import Project


def inside(flow: Any) -> Callable[..., Any]:
    """A flow's own function, without Prefect and what is done around a flow run."""
    return inspect.unwrap(flow.fn)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "begin",
    [inside(unlearn.unlearn), inside(process.process), lambda: inside(bench.bench)("bench.yaml")],
    ids=["unlearn", "process", "bench"],
)
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda project, patch: patch.setenv("MLFLOW_TRACKING_URI", "./mlruns"), "MLFLOW_TRACKING_URI=./mlruns is a folder"),
        (lambda project, patch: (project.home / "mlflow.db").write_bytes(b"no database" * 99), "file is not a database"),
    ],
    ids=["a folder", "a damaged database"],
)
def test_a_flow_whose_runs_could_not_be_recorded_does_not_begin(
    begin: Callable[[], Any],
    break_it: Callable[[Project, Any], Any],
    said: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.root)
    project.home.mkdir()
    Path("bench.yaml").write_text("name: b\ntargets: [{classes: [Bag]}]\nmethods: [finetune]\nseeds: [0]\n")
    break_it(project, monkeypatch)
    with pytest.raises(MeguError, match=said):
        begin()
    assert not project.store.root.exists()
