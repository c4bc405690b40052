"""Streams of randomness from one seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

#: Held while the process-wide generators are in use: threads share them.
_PROCESS_WIDE = threading.RLock()


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream ``names`` of a run; unrelated for different names, the same on every machine."""
    digest = blake2b("/".join([str(seed), *map(str, names)]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for the stream. Draws are made on the CPU and moved, so they do not depend on the device."""
    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def process_wide(seed: int) -> Iterator[None]:
    """Seed the process-wide generators (PyTorch's, NumPy's, Python's) with ``seed``, and restore them afterwards.

    For code that takes no generator: the initialisation of layers. Only one thread at a time is inside.
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
    """Inside, `start` and `process_wide` wait in every other thread, so that only this thread advances the process-wide generators."""
    with _PROCESS_WIDE:
        yield


def start(seed: int) -> None:
    """Seed the process-wide generators with ``seed``, for code that draws from them implicitly: dropout, a user's own code.

    It waits for a thread that is inside `process_wide` or `undisturbed`, but does not stop other threads from drawing afterwards: models
    that draw in training are refused in threads (`megu.models.draws`).
    """
    with _PROCESS_WIDE:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


def positions() -> tuple[bytes, bytes, bytes]:
    """Return the states of the process-wide generators (PyTorch's, NumPy's, Python's); the value differs once one has drawn."""
    numpys = np.random.get_state(legacy=False)["state"]
    return (
        torch.get_rng_state().numpy().tobytes(),
        numpys["key"].tobytes() + str(numpys["pos"]).encode(),
        repr(random.getstate()).encode(),
    )
