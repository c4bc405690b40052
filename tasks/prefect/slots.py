"""GPU slots: leases of a Prefect concurrency limit, which end by themselves when whoever holds one is killed.

A team makes a limit for each GPU (``prefect global-concurrency-limit create gpu:0 --limit 1``); without one nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.concurrency.sync import concurrency

from megu.core.device import resolve

#: Seconds after which the slot of a killed run is free again; a run that lives renews it.
LEASE = 120.0


@contextmanager
def gpu(device: str) -> Iterator[None]:
    """Hold the slot of a GPU (``config.device``) for as long as the block lasts, waiting for it; at once on a CPU."""
    found = resolve(device)
    if found.type != "cuda":
        yield
        return
    with slot(f"gpu:{found.index or 0}"):
        yield


@contextmanager
def slot(name: str) -> Iterator[None]:
    """Hold one slot of a limit; there and then where there is no such limit."""
    with concurrency(name, occupy=1, strict=False, lease_duration=LEASE):
        yield
