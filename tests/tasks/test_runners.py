"""The setting of the runner becomes Prefect's task runner, or one line."""

from __future__ import annotations

import sys

import pytest

from megu.bench.config import Runner
from megu.core.errors import MeguError
from tasks.run.runners import task_runner


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.run.runners.ANSWER_S", 1)
    with pytest.raises(MeguError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        task_runner(Runner(kind="dask", address="tcp://127.0.0.1:1"))


def test_without_the_extra_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask.task_runners", None)
    with pytest.raises(MeguError, match=r"pip install 'megu\[dask\]'"):
        task_runner(Runner(kind="dask"))


def test_a_local_cluster_gets_workers_and_threads_as_asked() -> None:
    settings = task_runner(Runner(kind="dask", workers=3, threads_per_worker=2)).cluster_kwargs
    assert settings["n_workers"] == 3
    assert {settings["env"][name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"2"}
    assert task_runner(Runner(kind="threads", workers=3))._max_workers == 3


@pytest.mark.slow
def test_a_scheduler_that_runs_is_used_if_it_has_workers() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(MeguError, match="has no workers"):
            task_runner(Runner(kind="dask", address=cluster.scheduler_address))
        cluster.scale(1)
        cluster.wait_for_workers(1)
        assert task_runner(Runner(kind="dask", address=cluster.scheduler_address)).address == cluster.scheduler_address
