"""The device: one word in the configuration, the same code on CPU and CUDA, and nothing that makes a device wait for the host.

A copy from ordinary memory, `Tensor.item`, `Tensor.cpu`, `bool(tensor)` and `torch.nonzero` wait until a CUDA device has caught up.
Inside a training step there is none of them: what a step needs is `sent` ahead.
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

#: Steps of one shape from which on cuDNN's search for the fastest kernels pays.
SEARCH_FROM = 2000

CPU = torch.device("cpu")
#: Ends a device setting that asks for the same bits every time ("cuda:1 deterministic").
DETERMINISTIC = " deterministic"


def resolve(setting: str) -> torch.device:
    """The device for "auto" (CUDA when there, else CPU), "cpu", "cuda" or "cuda:N", each also followed by " deterministic".

    A CUDA device puts this process into the mode that the setting asks for (`set_deterministic`); a CPU is in no other.
    Raises `MeguError` when CUDA is asked for and not there.
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
    """ "cpu", "cuda" or "cuda deterministic": what results may depend on. "auto" is what it stands for on this machine."""
    name = setting.removesuffix(DETERMINISTIC).split(":")[0]
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return name + (DETERMINISTIC if name == "cuda" and setting.endswith(DETERMINISTIC) else "")


def set_deterministic(enabled: bool) -> None:
    """Make CUDA give the same bits every time, in this process, or let it choose.

    It costs the choice of kernels, and a fixed workspace of cuBLAS. An operation that has no deterministic kernel raises
    torch's ``RuntimeError``, which names it.
    """
    if enabled:  # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = False


@contextmanager
def choosing_kernels(calls: int) -> Iterator[None]:
    """Inside, cuDNN tries for every new shape which of its kernels is the fastest, where that pays: with at least `SEARCH_FROM` calls.

    The search takes some two seconds a shape of a ResNet-18's batch on an H100. In deterministic mode there is none: its choice may be
    another each time.
    """
    torch.backends.cudnn.benchmark = calls >= SEARCH_FROM and not torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        # Not what it was before: in threads that would be what another one is inside of.
        torch.backends.cudnn.benchmark = False


def fast_dtype(device: torch.device) -> torch.dtype:
    """The number format of the forward pass in training: bfloat16 where the hardware multiplies it, else float32.

    On CPUs without AVX512-BF16 or AMX, and on GPUs before Ampere, bfloat16 is emulated and several times slower than float32.
    """
    if device.type == "cuda":
        # By default torch says yes to what older GPUs emulate, too.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def fast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, products of matrices are computed in `fast_dtype`."""
    dtype = fast_dtype(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def fused(model: nn.Module) -> bool:
    """Whether an optimiser over the model's weights is to be one kernel for all of them.

    On a CPU it is not: it rounds otherwise, and saves less than a hundredth of a step (docs/engine.md).
    """
    weight = next(model.parameters(), None)
    return weight is not None and weight.device.type == "cuda"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``, without waiting for it: through pinned memory, in the order of what else is asked of it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Cost:
    """seconds: by the clock, until the device had finished. peak_memory_bytes: the most that was held at once: on CUDA by tensors
    on the device, else by the whole process in main memory."""

    seconds: float
    peak_memory_bytes: int


def measured(work: Callable[[], T], device: torch.device) -> tuple[T, Cost]:
    """What ``work`` returns, and what it cost on ``device``."""
    forget_peak(device)
    started = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, Cost(time.perf_counter() - started, peak_memory(device))


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` count from here on; where the system does not let us, it counts from the start of the process."""
    if device.type == "cuda":
        # Nothing need have used the device so far, and then torch has no statistics to reset.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Bytes at most held at once since `forget_peak`, as `Cost` has them."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
