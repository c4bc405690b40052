"""What computes a benchmark's stages: this process, its threads, or the processes of a Dask cluster, each a Prefect task runner."""

from __future__ import annotations

import os
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from megu.bench.config import Runner
from megu.core.errors import MeguError

#: Seconds to wait for an answer of an existing scheduler.
ANSWER_S = 10


def task_runner(runner: Runner) -> Any:
    """Return Prefect's task runner for the setting.

    Raises
    ------
    MeguError: prefect-dask is not installed, or nobody answers at the address.
    """
    if runner.kind != "dask":
        return ThreadPoolTaskRunner(max_workers=runner.slots)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise MeguError("runner.kind = dask needs Prefect's Dask task runner", "pip install 'megu[dask]'") from None
    if runner.address:
        _refuse_absent(runner.address)
        return DaskTaskRunner(address=runner.address)
    threads = str(runner.threads)
    cluster = {
        "n_workers": runner.workers,
        "threads_per_worker": 1,  # one stage at a time in each process; independent of PyTorch's own threads
        "dashboard_address": None,
        # Set before a worker starts: OpenMP reads it then.
        "env": {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
    }
    return DaskTaskRunner(cluster_kwargs=cluster)


def _refuse_absent(address: str) -> None:
    from distributed import Client

    try:
        with Client(address, timeout=ANSWER_S, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            workers = client.scheduler_info()["workers"]
    except (OSError, TimeoutError, ValueError) as error:
        said = " ".join(str(error).split())
        raise MeguError(
            f"runner.address: no Dask scheduler answers at {address} ({said})", "start it, or correct the address"
        ) from None
    if not workers:
        raise MeguError(f"runner.address: the Dask scheduler at {address} has no workers", "start some: dask worker ADDRESS")
