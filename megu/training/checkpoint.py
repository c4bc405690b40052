"""Checkpoints of a training in progress: model, optimiser and step in one safetensors file, no pickle.

Everything random in a training is a function of the seed and the step (`megu.training.loop`), so there is no random state to save.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

_KEY = "megu"


def save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, key: str) -> None:
    """Write the state after ``step`` steps, completely or not at all. ``key`` identifies the training it belongs to."""
    from safetensors.torch import save as to_bytes

    from megu.core.files.store import writing

    tensors: dict[str, Tensor] = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    plain: dict[str, dict[str, float | None]] = {}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path) as temporary:
        temporary.write_bytes(to_bytes(content, metadata={_KEY: json.dumps({"step": step, "key": key, "plain": plain})}))


def restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, key: str) -> int:
    """Load a checkpoint into ``model`` and ``optimiser`` and return its step; load nothing and return 0 when there is none for ``key``."""
    if not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads(file.metadata()[_KEY])
            if meta["key"] != key:
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0  # damaged, or not ours: starting over is always correct
    model.load_state_dict({name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")})
    states: dict[int, dict[str, object]] = {int(index): dict(values) for index, values in meta["plain"].items()}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, index, entry = name.split("/", 2)
            states.setdefault(int(index), {})[entry] = laid_out(value, parameters[int(index)])
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(meta["step"])


def laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return ``value`` in the memory layout (channels last, say) of its parameter: a file does not preserve it, and CUDA's fused optimisers
    refuse a different one."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)
