"""How much memory a piece of work takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Seconds between looks. A look costs some microseconds; what is taken and given back in between is not seen.
LOOK_EVERY_S = 0.02
MIB = 2**20


@dataclass
class Memory:
    """Of this process, in MiB of resident memory. before: at the start. peak: the most that was seen. device_peak: of CUDA memory
    that PyTorch had in use, None without CUDA. Known when the block of `watched` has ended."""

    before: float
    peak: float
    device_peak: float | None = None

    def to_json(self) -> dict[str, float]:
        known = {"before_mib": self.before, "peak_mib": self.peak, "device_peak_mib": self.device_peak}
        return {name: round(value, 1) for name, value in known.items() if value is not None}


@contextmanager
def watched() -> Iterator[Memory]:
    """Look at this process's memory while the block runs; threads that work beside it are counted in."""
    import psutil

    process, done = psutil.Process(), threading.Event()

    def used() -> float:
        return float(process.memory_info().rss) / MIB

    memory = Memory(used(), used())

    def look() -> None:
        while not done.wait(LOOK_EVERY_S):
            memory.peak = max(memory.peak, used())

    watcher = threading.Thread(target=look, name="memory", daemon=True)
    _cuda_peak(reset=True)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()
        memory.peak = max(memory.peak, used())
        memory.device_peak = _cuda_peak()


def _cuda_peak(*, reset: bool = False) -> float | None:
    """The most CUDA memory in use since the last reset; None when PyTorch is not loaded or has not used CUDA."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.max_memory_allocated()) / MIB
