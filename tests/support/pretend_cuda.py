"""A CUDA device that is not there: tensors of the CPU that say they are on ``cuda:0`` and keep CUDA's rules, with real numbers.

Inside ``pretending()`` what is moved to or made on `CUDA` becomes an `OnDevice`. Every operation on one is looked at and then computed
by the CPU's own kernel, so a result can be compared with the CPU's to the bit. (torch's ``FakeTensorMode`` keeps some of these rules,
but has no values, and without CUDA in the build it cannot differentiate.)

What raises, as on CUDA: an operation on tensors of both devices (but for a single number of the CPU beside elementwise operations,
and positions of the CPU that index a tensor of the device); positions of the device that index a tensor of the CPU; a generator of
the CPU for what is drawn on the device; ``numpy()``; a fused optimiser's step on weights, gradients and moments that lie in memory in
different orders; `torch.cuda.reset_peak_memory_stats` before CUDA is in use.

What waits for the device is noted in `Pretending.waits` with the lines of ``megu/`` that it was called from: a copy to the CPU; a copy to
the device that is not from pinned memory and ``non_blocking``; asking for a value (``item``, ``bool``, ``equal``); results whose size
depends on values (``nonzero``, masks as indices, ``unique``); `torch.cuda.synchronize`. `Pretending.operations` are the names of all that
was computed, to be compared with `NOT_DETERMINISTIC`.

What it cannot show: CUDA's kernels, their rounding, speed and limits (so neither cuDNN nor deterministic modes), streams and the life
of memory, several devices, compiling, and how much a wait costs. ``pretending(bfloat16=True)`` puts a simple autocast in the place of
torch's, which is off without CUDA: it casts what goes into convolutions, products and attention.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import megu

CUDA = torch.device("cuda", 0)
MEGU = str(Path(megu.__file__).parent)

#: Results that the host must have, or whose size depends on values.
ASKING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive",
    "bincount", "repeat_interleave",
}  # fmt: skip
#: Beside the elementwise ones, what takes a single number of the CPU.
TAKES_A_NUMBER = {"fill_", "masked_fill", "masked_fill_", "index_fill", "index_fill_", "index_put", "index_put_"}
#: What ends a run on CUDA when torch is to be deterministic (the list of `torch.use_deterministic_algorithms`; bilinear interpolation is
#: then computed otherwise).
NOT_DETERMINISTIC = {
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward",
    "fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_unpool2d", "max_unpool3d", "upsample_linear1d_backward",
    "upsample_bicubic2d_backward", "upsample_trilinear3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward", "put_", "histc", "bincount",
    "kthvalue", "median", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "cumsum",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class OnDevice(Tensor):
    """A tensor on the pretended device. ``inner``: the tensor of the CPU that has its numbers.

    To torch's C++ it is on the ``meta`` device, the one beside the CPU that can be differentiated on in any build.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        with torch.inference_mode(inner.is_inference()):  # in that mode a view of a tensor from outside is one from outside
            made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=torch.device("meta"),
            )
        made.inner = inner
        return made

    device = CUDA  # type: ignore[assignment]
    is_cuda = True
    is_meta = False

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        if id(self) not in memo:
            copied = OnDevice(self.inner.clone()).requires_grad_(self.requires_grad)
            copied._is_param = getattr(self, "_is_param", False)  # type: ignore[attr-defined]
            memo[id(self)] = copied
        return memo[id(self)]  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **kwargs: Any) -> str:
        return f"OnDevice({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the pretended device outside pretending()")


@dataclass(frozen=True)
class Wait:
    """what: for a person. lines: of ``megu/``, the innermost first, as "training.py:229"; functions: the functions they are in."""

    what: str
    lines: tuple[str, ...]
    functions: tuple[str, ...]


class Pretending(TorchDispatchMode):
    """Keeps the rules (see the module). waits: since the last `looked`; operations: since the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.operations: set[str] = set()

    def looked(self) -> list[Wait]:
        """The waits since the last call."""
        found, self.waits = self.waits, []
        return found

    def wait(self, what: str) -> None:
        lines, functions, frame = [], [], sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(MEGU):
                lines.append(f"{frame.f_code.co_filename[len(MEGU) + 1 :]}:{frame.f_lineno}")
                functions.append(frame.f_code.co_name)
            frame = frame.f_back  # type: ignore[assignment]
        self.waits.append(Wait(what, tuple(lines), tuple(functions)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        there = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        asked = kwargs.get("device")
        # What torch's own code makes beside one of ours is asked for where that is to C++.
        made_there = asked is not None and torch.device(asked).type in ("cuda", "meta")
        if not there and not made_there:
            return func(*args, **kwargs)
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts

        name = func._schema.name.removeprefix("aten::")
        self.operations.add(name)
        if made_there:
            kwargs["device"] = torch.device("cpu")
        if name in ("_to_copy", "copy_"):
            return self.copied(func, name, args, kwargs, made_there or asked is None)
        if any(isinstance(leaf, torch.Generator) for leaf in leaves):  # there is none of the device
            raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
        if name in INDEXING:
            self.index(func, *args[:3])
        else:
            here = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice)]
            number = torch.Tag.pointwise in func.tags or name in TAKES_A_NUMBER or name.startswith("_foreach_")
            changed = isinstance(args[0], Tensor) and not isinstance(args[0], OnDevice) and name.endswith("_")
            if changed or any(tensor.dim() or not number for tensor in here):
                raise different(func)
        if name.startswith("_fused_"):
            fusible(func, args)
        if name in ASKING:
            self.wait(name)
        return computed(func, args, kwargs)

    def copied(self, func: Any, name: str, args: Any, kwargs: dict[str, Any], there: bool) -> Any:
        """``there``: whether what `_to_copy` makes is on the device."""
        target, source = args[:2] if name == "copy_" else (None, args[0])
        there = isinstance(target, OnDevice) if name == "copy_" else there
        ahead = bool(kwargs.get("non_blocking") or (name == "copy_" and args[2:3] == (True,)))
        if isinstance(source, OnDevice) and not there:
            self.wait("a copy to the CPU")
            found = func(*tree_map_only(OnDevice, lambda tensor: tensor.inner, args), **kwargs)
            return target if name == "copy_" else found
        if there and not isinstance(source, OnDevice) and not (ahead and getattr(source, "pinned", False)):
            self.wait("a copy to the device that is waited for")
        return computed(func, args, kwargs)

    def index(self, func: Any, tensor: Tensor, indices: Any, values: Tensor | None = None) -> None:
        given = [index for index in indices if index is not None]
        if not isinstance(tensor, OnDevice):
            raise RuntimeError(f"{func}: indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if values is not None and not isinstance(values, OnDevice) and values.dim():
            raise different(func)
        if any(not isinstance(index, OnDevice) for index in given):
            self.wait("positions of the CPU")
        masks = [index.dtype in (torch.bool, torch.uint8) for index in given]
        filled = len(masks) == 1 and values is not None and values.numel() == 1
        if any(masks) and not filled:  # filling does without the positions
            self.wait("a mask as index")


def different(func: Any) -> RuntimeError:
    return RuntimeError(
        f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    )


def fusible(func: Any, arguments: Any) -> None:
    """CUDA's fused optimisers go through memory in its order, so weights, gradients and moments must lie alike, and refuse if not."""
    weights, *others = [entry for entry in arguments if isinstance(entry, list | tuple) and entry and entry[0].dim()]
    for weight, *rest in zip(weights, *others, strict=True):
        places = {
            tuple(step for step, size in zip(one.stride(), one.shape, strict=True) if size > 1) for one in (weight, *rest)
        }
        if len(places) > 1 or {one.dtype for one in rest} != {weight.dtype}:
            raise RuntimeError(f"{func}: params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout")


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """By the CPU; what an operation changes in place stays the tensor that it was."""
    before: dict[int, OnDevice] = {id(leaf.inner): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice)}
    args, kwargs = tree_map_only(OnDevice, lambda tensor: tensor.inner, (args, kwargs))

    def placed(tensor: Tensor) -> OnDevice:
        if id(tensor) not in before:
            return OnDevice(tensor)
        same = before[id(tensor)]
        if (same.shape, same.stride()) != (tensor.shape, tensor.stride()):
            raise NotImplementedError(f"{func} changes the shape of a tensor in place")
        return same

    return tree_map_only(Tensor, placed, func(*args, **kwargs))


class Autocast(TorchFunctionMode):
    """torch.autocast for the device: products, convolutions and attention in another format, and differentiable."""

    CAST = (torch.conv2d, F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, F.scaled_dot_product_attention)

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.device_type, self.dtype = device_type, dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.CAST:
            args, kwargs = tree_map_only(
                OnDevice, lambda tensor: tensor.to(self.dtype) if tensor.is_floating_point() else tensor, (args, kwargs)
            )
        return func(*args, **kwargs)


def pin_memory(tensor: Tensor) -> Tensor:
    if isinstance(tensor, OnDevice):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


@contextmanager
def pretending(*, bfloat16: bool = False, memory: int = 10**9) -> Iterator[Pretending]:
    """The device is there. bfloat16: whether its hardware multiplies it. memory: bytes that are free on it."""
    mode = Pretending()
    used = []

    def reset(device: torch.device) -> None:
        if not used:
            raise RuntimeError("Invalid device argument 0: did you call init?")

    instead: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "init": lambda: used.append(True),
        "is_bf16_supported": lambda including_emulation=True: bfloat16 or including_emulation,
        "reset_peak_memory_stats": reset,
        "mem_get_info": lambda *_: (memory, memory),
        "max_memory_allocated": lambda *_: 1,
        "synchronize": lambda *_: mode.wait("synchronize"),
    }
    with ExitStack() as stack:
        for name, value in instead.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(Tensor, "pin_memory", pin_memory))
        if bfloat16:
            stack.enter_context(patch.object(torch, "autocast", Autocast))
        # What is made from Python's numbers is moved to the device where this mode sees it.
        before = torch._C._only_lift_cpu_tensors()
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(mode)
        yield mode
