"""Whole training steps as CUDA graphs: recorded once for each shape of batch, then replayed by one call.

A GPU computes a small network's step faster than Python launches it, kernel by kernel: a ResNet-18 on 32x32 images at batch 128
spends half of an H100's time waiting for the host (docs/engine.md). A replayed graph is one launch.

A recording repeats the same kernels on the same memory, and Python does not run again. So recorded work reads its inputs and whatever
changes from step to step (the learning rate, say) from tensors, and updates its state in place. Work that cannot be recorded runs eagerly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor, nn

from megu.core.progress import stages
from megu.core.seeds import positions, undisturbed
from megu.training.distributed import world

#: Work on tensors on the device that updates its state in place; returns a tensor (a loss, say).
Work = Callable[..., Tensor]
#: Eager calls with a shape before it is recorded: they choose kernels, and give optimisers their state.
WARM_UP = 3
#: The fewest calls for which a recording is worth its cost, some tenths of a second.
WORTH = 30


class Graph(Protocol):
    """A recording of work on a device."""

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record what ``work`` launches on the device, without computing it; return the tensor that every `replay` fills."""

    def replay(self) -> None: ...


class CudaGraph:
    """torch's."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        # "thread_local": other threads may keep using the device meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            return work()

    def replay(self) -> None:
        self.graph.replay()


_eager: ContextVar[bool] = ContextVar("eager", default=False)


@contextmanager
def eagerly() -> Iterator[None]:
    """Record nothing inside the block, for comparisons."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def recordable(device: torch.device) -> bool:
    """Return whether work on ``device`` can be recorded: on CUDA, by one process that trains alone."""
    return device.type == "cuda" and torch.cuda.is_available() and world().size == 1


class Captured:
    """``work(*inputs)``, recorded from the fourth call with a shape on; the returned tensor belongs to the caller.

    work: see `Work`. It may call ``model``, whose Python state (attributes that are numbers, flags or text; generators of the CPU) must not
    change from call to call: if it does, or if recording fails, a note says why and the work runs eagerly.
    calls: how many are expected; fewer than `WORTH` are not recorded.
    """

    def __init__(self, work: Work, model: nn.Module, device: torch.device, calls: int, what: str) -> None:
        """what: the name of the work in the note."""
        self.work, self.model, self.device, self.what = work, model, device, what
        self.recording = calls >= WORTH and recordable(device) and not _eager.get()
        self.calls: Counter[object] = Counter()
        self.recorded: dict[object, tuple[Graph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not self.recording:
            return self.work(*inputs).detach()
        shape = tuple((entry.shape, entry.stride(), entry.dtype) for entry in inputs)
        if shape not in self.recorded and (self.calls[shape] < WARM_UP or not self.record(shape, inputs)):
            self.calls[shape] += 1
            return self.warm(*inputs)
        graph, held, found = self.recorded[shape]
        for buffer, entry in zip(held, inputs, strict=True):
            buffer.copy_(entry)
        graph.replay()
        return found.clone()

    def warm(self, *inputs: Tensor) -> Tensor:
        """Run the work eagerly; while it may still be recorded, on a side stream of the device, as a recording does."""
        if not self.recording:
            return self.work(*inputs).detach()
        # Undisturbed: the steps of other threads reseed the generators, which would look as if this work had drawn.
        with undisturbed():
            before, generators = python_state(self.model), positions()
            with beside(self.device):
                found = self.work(*inputs).detach()
            drawn = positions() != generators
        if python_state(self.model) != before:
            self.give_up("the model's Python state changes from step to step")
        elif drawn:
            self.give_up("random numbers are drawn on the CPU in its steps")
        return found

    def record(self, shape: object, inputs: tuple[Tensor, ...]) -> bool:
        """Try to record the work for inputs of this shape, without computing; return whether it was recorded."""
        held = tuple(entry.clone() for entry in inputs)
        graph = graph_on(self.device)
        try:
            # Undisturbed: a recording starts from torch's own generator of the device, which other threads' steps reseed.
            with undisturbed():
                found = graph.record(lambda: self.work(*held).detach())
        except RuntimeError as error:
            self.give_up(str(error).strip().split("\n")[0])
            return False
        self.recorded[shape] = graph, held, found
        return True

    def give_up(self, why: str) -> None:
        self.recording = False
        stages().note(f"{self.what}: not recorded as a CUDA graph, so slower: {why}")


def graph_on(device: torch.device) -> Graph:
    return CudaGraph()


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Run work on a stream of its own, after everything launched before and before everything launched afterwards."""
    if device.type != "cuda":
        yield
        return
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        yield
    main.wait_stream(side)


def python_state(model: nn.Module) -> object:
    """Return what a recording of ``model`` would freeze: its modules' numbers, flags and text."""
    plain = (int, float, str, type(None))
    return [(name, value) for module in model.modules() for name, value in vars(module).items() if isinstance(value, plain)]
