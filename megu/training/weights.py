"""Model weights as safetensors, the source of truth for every model here. Self-describing, no pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megu.core.errors import MeguError
from megu.models import Size, architecture, blank, fresh, seeded

_KEY = "megu"


@dataclass(frozen=True)
class ModelInfo:
    """What is needed to build the model that a weights file belongs to.

    image_size: height and width, for an architecture that is built for one size; None for the others.
    pretrained: as in `megu.training.loop.TrainParams`.
    """

    arch: str
    num_classes: int
    channels: int
    image_size: Size | None = None
    pretrained: bool = False

    @classmethod
    def of(cls, arch: str, num_classes: int, shape: tuple[int, int, int], pretrained: bool = False) -> ModelInfo:
        """Describe a model for images of ``shape`` (C, H, W)."""
        return cls(arch, num_classes, shape[0], shape[1:] if architecture(arch).sized else None, pretrained)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelInfo:
        size = value.get("image_size")
        return cls(**{**value, "image_size": None if size is None else (int(size[0]), int(size[1]))})

    def fresh(self) -> nn.Module:
        """Return a newly initialised model of this description, drawn from the process-wide generators; errors as `megu.models.build`."""
        return fresh(self.arch, self.num_classes, self.channels, self.image_size or (32, 32), pretrained=self.pretrained)

    def build(self, seed: int = 0) -> nn.Module:
        """Return a model of this description to load weights into, the same for the same seed."""
        return seeded(lambda: blank(self.arch, self.num_classes, self.channels, self.image_size or (32, 32)), seed)


def digest(model: nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of everything in the state: equal digests mean equal models."""
    hashed = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def to_bytes(model: nn.Module, info: ModelInfo) -> bytes:
    """Return the content of a weights file; the same bytes for the same weights."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    return save(state, metadata={_KEY: json.dumps(info.to_json(), sort_keys=True)})


def save_weights(path: Path, model: nn.Module, info: ModelInfo) -> None:
    """Write a weights file, completely or not at all."""
    from megu.core.files.store import writing

    with writing(path) as temporary:
        temporary.write_bytes(to_bytes(model, info))


def load_weights(path: Path, name: str = "") -> tuple[dict[str, Tensor], ModelInfo]:
    """Return the state and the description in a weights file. name: the file's name for messages, where ``path`` is a copy.

    Raises `MeguError` when the file is not one of ours.
    """
    state, info = read_state(path, name)
    if info is None:
        raise MeguError(
            f"{name or path} does not state its architecture",
            "write it with megu.training.weights.save_weights, which adds it to the file, or name its architecture with train.arch",
        )
    return state, info


def read_state(path: Path, name: str = "") -> tuple[dict[str, Tensor], ModelInfo | None]:
    """Return the state in a weights file, and the description in it, if any. name: as in `load_weights`.

    The file may be safetensors, a state dictionary written by ``torch.save`` (.pt, .pth; also in an entry "state_dict" or "model", as
    training scripts write it) or an exported program (.pt2, MLflow's format). None of the readers runs code from the file.

    Raises `MeguError` when it is none of these, and for weights that are not finite, quantised or sparse; it names the first.
    """
    name = name or str(path)
    read = _READERS.get(path.suffix, _safetensors_state)
    state, info = read(path, name)
    if not state:
        raise MeguError(f"{name} holds no weights", "save model.state_dict() with safetensors.torch.save_file")
    for entry, tensor in state.items():
        if fault := _fault(tensor):
            raise MeguError(f"{name}: {entry} {fault}", "provide the weights of a working model; these are damaged")
    return state, info


def _fault(tensor: Tensor) -> str:
    """Return why a tensor cannot be a weight; "" when it can."""
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_complex():
        kind = "quantised" if tensor.is_quantized else "complex" if tensor.is_complex() else "sparse"
        return f"is {kind}, which no architecture here is"
    if not tensor.is_floating_point():
        return ""
    wrong = ~torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    return (
        f"has {int(wrong.sum()):,} of {tensor.numel():,} numbers that are not finite (NaN or infinity)" if wrong.any() else ""
    )


def _safetensors_state(path: Path, name: str) -> tuple[dict[str, Tensor], ModelInfo | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            info = ModelInfo.from_json(json.loads(meta[_KEY])) if _KEY in meta else None
            return {entry: file.get_tensor(entry) for entry in file.keys()}, info  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise MeguError(
            f"{name} is not a safetensors weights file ({_said(error, path)})", "give a file written by megu.training.weights"
        ) from None


def _said(error: BaseException, path: Path) -> str:
    """Return the reason in one line, without the path of a copy."""
    if not path.stat().st_size:
        return "it is empty"
    lines = str(error).replace(str(path), path.name).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _torch_state(path: Path, name: str) -> tuple[dict[str, Tensor], ModelInfo | None]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: a file can be wrong in many ways
        refused = "Weights only load failed" in str(error) or "weights_only" in str(error)
        why = "it holds pickled objects, which are never loaded" if refused else _said(error, path)
        raise MeguError(
            f"{name} is not a state dictionary ({why})", "save model.state_dict() with safetensors.torch.save_file"
        ) from None
    for entry in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(entry), dict):
            found = found[entry]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise MeguError(f"{name} holds no state dictionary", "save model.state_dict() with safetensors.torch.save_file")
    return {str(entry): tensor for entry, tensor in found.items()}, None


#: Kinds of file that `read_state` accepts besides safetensors.
OTHER_KINDS = (".pt", ".pth", ".pt2")

#: The numbers by which an exported program denotes tensor types (torch's ``_export.serde.schema.ScalarType``).
_EXPORTED_TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


def _exported_state(path: Path, name: str) -> tuple[dict[str, Tensor], ModelInfo | None]:
    """Return the weights of an exported program: plain bytes and a JSON description of their types and shapes, in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/model_weights_config.json"))
            entries: dict[str, Any] = json.loads(archive.read(listing))["config"]
            if any(entry["use_pickle"] for entry in entries.values()):
                raise ValueError("it holds pickled objects, which are never loaded")
            folder = listing.rpartition("/")[0]
            found = {key: _exported(entry, archive.read(f"{folder}/{entry['path_name']}")) for key, entry in entries.items()}
            return found, None
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MeguError(
            f"{name} is not an exported model whose weights can be read ({_said(error, path)})",
            "save model.state_dict() with safetensors.torch.save_file",
        ) from None


def _exported(entry: Mapping[str, Any], content: bytes) -> Tensor:
    meta = entry["tensor_meta"]
    sizes, strides = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
    flat = torch.frombuffer(bytearray(content), dtype=_EXPORTED_TYPES[meta["dtype"]])
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()


_READERS = {".pt": _torch_state, ".pth": _torch_state, ".pt2": _exported_state}


def load_model(path: Path, given: ModelInfo | None = None, name: str = "") -> tuple[nn.Module, ModelInfo]:
    """Return the model in a weights file, on the CPU, in evaluation mode. ``given`` describes a file that does not describe itself.

    Weights of a different floating-point type than the architecture's are converted. name: as in `load_weights`.

    Raises `MeguError` when the file is damaged, has an unknown architecture, or does not fit the one it names.
    """
    state, info = read_state(path, name)
    if info is None:
        if given is None:
            load_weights(path, name)  # raises the error
        info = given
    assert info is not None
    model = info.build()
    fix = "give weights of that architecture"
    for entry, wanted in model.state_dict().items():
        if entry in state and state[entry].is_floating_point() != wanted.is_floating_point():
            kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (state[entry], wanted)]
            raise MeguError(
                f"{name or path} does not fit the architecture {info.arch}: {entry} is {kinds[0]}, not {kinds[1]}", fix
            )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise MeguError(f"{name or path} does not fit the architecture {info.arch} ({first})", fix) from None
    for entry, tensor in model.state_dict().items():
        if fault := _fault(tensor):  # float64 has a larger range than float32
            raise MeguError(f"{name or path}: as {tensor.dtype}, {entry} {fault}", "give smaller weights")
    return model.eval(), info
