"""A purge and what writes exclude each other, and a lock ends with its process."""

from __future__ import annotations

import os
import signal
import time

import pytest

from megu.core.errors import MeguError
from megu.core.files.exclusion import purging, while_no_purge, working
from megu.core.project import Project
from megu.data.sources import providers


def test_many_may_work_and_a_purge_is_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    flow = while_no_purge(lambda: "worked")
    with working(project), working(project):
        assert flow() == "worked"
        with pytest.raises(MeguError, match="a run is under way in this project"), purging(project):
            pass
    with purging(project):
        for refused in (flow, lambda: providers.fetch(project.root, "fashion-mnist"), lambda: working(project).__enter__()):
            with pytest.raises(MeguError, match="a purge is under way"):
                refused()
        with pytest.raises(MeguError, match="another purge is under way"), purging(project):
            pass
    assert flow() == "worked"


@pytest.mark.parametrize("kind", [working, purging])
def test_what_is_killed_blocks_nobody(project: Project, kind: object) -> None:
    """However a container names its machine, and whatever numbers its processes have."""
    child = os.fork()
    if not child:
        with kind(project):  # type: ignore[operator]
            (project.root / "held").touch()
            time.sleep(60)
        os._exit(0)
    while not (project.root / "held").exists():
        time.sleep(0.01)
    with pytest.raises(MeguError), purging(project):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with purging(project):
        pass


def test_every_flow_keeps_purges_out_and_is_refused_by_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import bench, label, process, promote, unlearn

    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    with purging(project):
        for flow, named in (
            (unlearn.unlearn, {}),
            (process.process, {}),
            (bench.bench, {"file": "bench.yaml"}),
            (label.label, {}),
            (promote.promote, {}),
        ):
            with pytest.raises(MeguError, match="a purge is under way"):
                flow.fn(**named)
