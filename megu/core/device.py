"""The device: one word in the configuration, the same code on CPU and CUDA, and nothing that makes a device wait for the host.

A copy from pageable memory, `Tensor.item`, `Tensor.cpu`, `bool(tensor)` and `torch.nonzero` wait until a CUDA device has caught up.
A training step uses none of them: what it needs is `sent` ahead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from megu.core.errors import MeguError

T = TypeVar("T")

#: Number of steps of one shape from which cuDNN's search for the fastest kernels pays off.
SEARCH_FROM = 2000

CPU = torch.device("cpu")
#: Suffix of a device setting that asks for the same bits every time ("cuda:1 deterministic").
DETERMINISTIC = " deterministic"


def resolve(setting: str) -> torch.device:
    """Return the device for "auto" (CUDA if available, else CPU), "cpu", "cuda" or "cuda:N", each also followed by " deterministic".

    A CUDA device puts this process into the mode that the setting asks for (`set_deterministic`); a CPU has only one mode.
    Raises `MeguError` when CUDA is requested but not available.
    """
    name = setting.removesuffix(DETERMINISTIC)
    device = torch.device(device_class(name) if name == "auto" else name)
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise MeguError(
                f"device = {name}: this machine has {torch.cuda.device_count()} CUDA devices", "set device: auto or cpu"
            )
        set_deterministic(setting.endswith(DETERMINISTIC))
    return device


def device_class(setting: str) -> str:
    """Return "cpu", "cuda" or "cuda deterministic": what results may depend on. "auto" is resolved for this machine."""
    name = setting.removesuffix(DETERMINISTIC).split(":")[0]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return name + (DETERMINISTIC if name == "cuda" and setting.endswith(DETERMINISTIC) else "")


def set_deterministic(enabled: bool) -> None:
    """Make CUDA give the same bits every time, in this process, or let it choose.

    It costs the choice of kernels, and a fixed cuBLAS workspace. An operation without a deterministic kernel raises
    torch's ``RuntimeError``, which names it.
    """
    if enabled:  # cuBLAS reads it on first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = False


@contextmanager
def choosing_kernels(calls: int) -> Iterator[None]:
    """Inside, cuDNN searches for the fastest of its kernels for every new shape, if that pays off: with at least `SEARCH_FROM` calls.

    The search takes about two seconds for each shape of a ResNet-18's batch on an H100. Deterministic mode does without: the choice may
    differ each time.
    """
    torch.backends.cudnn.benchmark = calls >= SEARCH_FROM and not torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        # Not the previous value: with threads, that may have been set by another one inside its block.
        torch.backends.cudnn.benchmark = False


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the number format of the forward pass in training: bfloat16 if the hardware multiplies it, else float32.

    On CPUs without AVX512-BF16 or AMX, and on GPUs before Ampere, bfloat16 is emulated and several times slower than float32.
    """
    if device.type == "cuda":
        # By default torch also says yes for older GPUs, which emulate it.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def fast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, matrix products are computed in `fast_dtype`."""
    dtype = fast_dtype(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def fused(model: nn.Module) -> bool:
    """Whether the optimiser should update all of the model's weights in one kernel.

    Not on a CPU: rounding differs there, and it saves less than a hundredth of a step (docs/engine.md).
    """
    weight = next(model.parameters(), None)
    return weight is not None and weight.device.type == "cuda"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a CPU tensor to ``device`` without waiting: through pinned memory, in order with the other work queued there."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Cost:
    """seconds: wall-clock time until the device had finished. peak_memory_bytes: the most that was allocated at once: on CUDA by tensors
    on the device, else by the whole process in main memory.
    """

    seconds: float
    peak_memory_bytes: int


def measured(work: Callable[[], T], device: torch.device) -> tuple[T, Cost]:
    """Return the result of ``work``, and its cost on ``device``."""
    forget_peak(device)
    started = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, Cost(time.perf_counter() - started, peak_memory(device))


def forget_peak(device: torch.device) -> None:
    """Reset `peak_memory`; where the system does not allow that, it counts from the start of the process."""
    if device.type == "cuda":
        # If nothing has used the device yet, torch has no statistics to reset.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Return the maximum number of bytes allocated at once since `forget_peak`, as in `Cost`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
