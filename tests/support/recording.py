"""A CUDA graph that is not there: what is asked of the CPU is recorded and repeated as a graph would, on the same memory and without Python.

While it records, nothing is kept of what is computed: tensors that were changed in place are put back. Asking for a value raises, as in a
capture on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph:
    """See `megu.training.capture.Graph`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        recorder = Recorder(self)
        try:
            with recorder:
                return work()
        finally:
            with torch.no_grad():
                for tensor, before in recorder.changed.values():
                    tensor.copy_(before)

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, found in self.calls:
                again = tensors(function(*args, **kwargs))
                for old, new in zip(found, again, strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Recorder(TorchDispatchMode):
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph, self.changed = graph, dict[int, tuple[Tensor, Tensor]]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.name == "aten::_local_scalar_dense":
            raise RuntimeError("operation not permitted when stream is capturing\nmore of torch's explanation")
        written = [
            given
            for argument, given in zip(function._schema.arguments, args, strict=False)
            # Batch norm changes its statistics, which its schema does not say.
            if (argument.alias_info and argument.alias_info.is_write) or argument.name in ("running_mean", "running_var")
        ]
        for tensor in tensors(written):
            self.changed.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        found = function(*args, **kwargs)
        self.graph.calls.append((function, args, kwargs, tensors(found)))
        return found


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
