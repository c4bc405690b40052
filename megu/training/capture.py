"""Whole training steps as CUDA graphs: recorded once for each shape of batch, then replayed by one call.

A GPU computes a small network's step faster than Python launches it, kernel by kernel: a ResNet-18 on 32x32 images at batch 128
spends half of an H100's time waiting for the host (docs/engine.md). A replayed graph is one launch.

A recording repeats the same kernels on the same memory, and Python does not run again. So the work that is recorded reads its inputs and
whatever changes from step to step (the learning rate, say) from tensors, and updates its state in place. What cannot be recorded runs as it is.
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

#: Work on tensors of the device that updates its state in place; returns a tensor (a loss, say).
Work = Callable[..., Tensor]
#: Calls with a shape that run as they are before it is recorded: they choose kernels, and give optimisers their state.
WARM_UP = 3
#: Calls from which on a recording is worth what it takes, some tenths of a second.
WORTH = 30


class Graph(Protocol):
    """A recording of work on a device."""

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        """Record what ``work`` asks of the device, without computing it; return the tensor that every `replay` fills."""

    def replay(self) -> None: ...


class CudaGraph:
    """torch's."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        # "thread_local": other threads may go on using the device meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            return work()

    def replay(self) -> None:
        self.graph.replay()


_eager: ContextVar[bool] = ContextVar("eager", default=False)


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside, nothing is recorded: to compare the two."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def recordable(device: torch.device) -> bool:
    """Whether work on ``device`` can be recorded: on CUDA, by one process that trains alone."""
    return device.type == "cuda" and torch.cuda.is_available() and world().size == 1


class Captured:
    """``work(*inputs)``, recorded from the fourth call with a shape on; the returned tensor is the caller's own.

    work: see `Work`. It may call ``model``, whose Python state (attributes that are numbers, flags or text; generators of the CPU) must not
    change from call to call: then, as where recording fails, a note says why and the work runs as it is.
    calls: how many are expected; fewer than `WORTH` are not recorded.
    """

    def __init__(self, work: Work, model: nn.Module, device: torch.device, calls: int, what: str) -> None:
        """what: names the work in the note."""
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
        """The work as it is; while it may still be recorded beside the device's main stream, as a recording is."""
        if not self.recording:
            return self.work(*inputs).detach()
        # Undisturbed: the steps of other threads start the generators anew, which would look as if this work had drawn.
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
        """Whether the work is recorded for inputs of this shape. Nothing is computed."""
        held = tuple(entry.clone() for entry in inputs)
        graph = graph_on(self.device)
        try:
            # Undisturbed: a recording begins with torch's own generator of the device, which other threads' steps start anew.
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
    """Inside, work goes to a stream of its own, after what was asked before and before what is asked afterwards."""
    if device.type != "cuda":
        yield
        return
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        yield
    main.wait_stream(side)


def python_state(model: nn.Module) -> object:
    """What a recording of ``model`` would freeze: its modules' numbers, flags and text."""
    plain = (int, float, str, type(None))
    return [(name, value) for module in model.modules() for name, value in vars(module).items() if isinstance(value, plain)]
