"""Streams of randomness from one seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

#: Held by whoever uses the process-wide generators: threads share them.
_PROCESS_WIDE = threading.RLock()


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of a run; unrelated for different names, the same on every machine."""
    digest = blake2b("/".join([str(seed), *map(str, names)]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream. Draws are made on the CPU and moved, so they are the same whatever the device."""
    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def process_wide(seed: int) -> Iterator[None]:
    """Start the process-wide generators (PyTorch's, NumPy's, Python's) from ``seed``, and restore them afterwards.

    For code that can be given no generator: the initialisation of layers. One thread at a time is inside.
    """
    with _PROCESS_WIDE, torch.random.fork_rng(devices=[]):
        states = np.random.get_state(), random.getstate()
        start(seed)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, `start` and `process_wide` wait in every other thread, so that the process-wide generators move for this one alone."""
    with _PROCESS_WIDE:
        yield


def start(seed: int) -> None:
    """Start the process-wide generators from ``seed``, for what draws without being asked to: dropout, a user's own code.

    It waits for a thread that is inside `process_wide` or `undisturbed`, but keeps no other thread from drawing afterwards: models that draw in
    training are refused in threads (`megu.models.draws`).
    """
    with _PROCESS_WIDE:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


def positions() -> tuple[bytes, bytes, bytes]:
    """Where the process-wide generators stand (PyTorch's, NumPy's, Python's); another value once one has drawn."""
    numpys = np.random.get_state(legacy=False)["state"]
    return (
        torch.get_rng_state().numpy().tobytes(),
        numpys["key"].tobytes() + str(numpys["pos"]).encode(),
        repr(random.getstate()).encode(),
    )
