"""Model weights as safetensors: the source of truth for every model here. Self-describing, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from megu.errors import MeguError
from megu.models import MODELS, build

_KEY = "megu"


@dataclass(frozen=True)
class ModelInfo:
    """What it takes to build the model that a weights file belongs to."""

    arch: str
    num_classes: int
    channels: int


def digest(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of everything in the state: equal digests are equal models."""
    hashed = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def to_bytes(model: nn.Module, info: ModelInfo) -> bytes:
    """The weights file's content; the same bytes for the same weights."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    return save(state, metadata={_KEY: json.dumps(asdict(info), sort_keys=True)})


def save_weights(path: Path, model: nn.Module, info: ModelInfo) -> None:
    """Write a weights file, whole or not at all."""
    from megu.store import writing

    with writing(path) as temporary:
        temporary.write_bytes(to_bytes(model, info))


def load_weights(path: Path) -> tuple[dict[str, Tensor], ModelInfo]:
    """The state and the description in a weights file.

    Raises `MeguError` when the file is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            if _KEY not in meta:
                raise MeguError(
                    f"{path} says nothing of its architecture",
                    "write it with megu.weights.save_weights, which adds it to the file",
                )
            info = ModelInfo(**json.loads(meta[_KEY]))
            return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise MeguError(f"{path} is not a safetensors weights file ({error})", "give a file written by megu.weights") from None


def load_model(path: Path) -> tuple[nn.Module, ModelInfo]:
    """The model in a weights file, on the CPU, in evaluation mode.

    Raises `MeguError` when the file is damaged, of an unknown architecture, or does not fit the one it names.
    """
    state, info = load_weights(path)
    if info.arch not in MODELS:
        raise MeguError(f"{path} is a {info.arch!r} model", f"the architectures here are {', '.join(MODELS)}")
    model = build(info.arch, info.num_classes, info.channels, seed=0)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise MeguError(
            f"{path} does not fit the architecture {info.arch} ({first})", "give weights of that architecture"
        ) from None
    return model.eval(), info
