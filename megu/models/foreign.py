"""The user's own model: found by its import path, checked, and given the methods that every model here has."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megu.core import sources
from megu.core.errors import MeguError


def is_path(arch: str) -> bool:
    """Return whether an architecture is written as ``package.module:function``."""
    module, colon, function = arch.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *function.split(".")))


def find(arch: str) -> Callable[..., Any]:
    """Return the function at ``package.module:function``; the working directory is searched too.

    Raises `MeguError` when there is no such function, or its module cannot be imported.
    """
    name, _, function = arch.partition(":")
    with _working_directory():
        try:
            found: Any = importlib.import_module(name)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise MeguError(
                f"train.arch: {name} cannot be imported ({reason})", "install the package, or run where it can be found"
            ) from error
    for part in function.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise MeguError(f"train.arch: {name} has no function {function!r}", "write package.module:function")
    builder: Callable[..., Any] = found
    return builder


def call(function: Callable[..., Any], arch: str, num_classes: int, channels: int) -> Any:
    """Call the user's function and return its result. Raises `MeguError` with what it raised."""
    try:
        return function(num_classes, channels)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MeguError(
            f"train.arch: {arch}({num_classes}, {channels}) failed ({reason})",
            "it is called with the number of classes and of channels, and returns a torch.nn.Module",
        ) from error


def code(arch: str) -> dict[str, str]:
    """Return, by module, digests of the source that ``arch`` runs (its module and all that it imports from its own top-level package or
    from the same folder), and the version of every installed package that these import.

    Empty when the module cannot be found, which `find` reports better.
    """
    place = package(arch)
    module = arch.partition(":")[0]
    with _working_directory():
        return sources.closure(module, others={module.split(".")[0]: place.parent}) if place else {}


def package(arch: str) -> Path | None:
    """Return the folder of the top-level package of ``arch``, or its file when it is a single module; None when there is none."""
    with _working_directory():
        try:
            spec = importlib.util.find_spec(arch.partition(":")[0].split(".")[0])
        except (ImportError, ValueError):
            return None
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])] if spec else []
    return Path(places[0]) if places else None


@contextmanager
def _working_directory() -> Iterator[None]:
    """Add the working directory to the end of the import path: the console script does not put it there."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def adopt(model: Any, arch: str) -> nn.Module:
    """Return ``model`` itself, with ``features`` and ``classify`` derived from its last ``nn.Linear`` where it has none of its own.

    Its state keeps its names. Raises `MeguError` for an object that is not a model, or has no linear layer to derive them from.
    """
    if not isinstance(model, nn.Module):
        raise MeguError(f"{arch} gave a {type(model).__name__}, not a torch.nn.Module", "return the model")
    if all(callable(getattr(model, name, None)) for name in ("features", "classify")) and not isinstance(
        getattr(model, "features", None), nn.Module
    ):
        return model
    heads = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not heads:
        raise MeguError(
            f"{arch} has no nn.Linear to take the penultimate features from", "give the model methods features and classify"
        )
    return Adopted(model, heads[-1], arch)


class Adopted(nn.Module):
    """A user's model whose features are the inputs of its last linear layer. State and parameters have the model's own names."""

    def __init__(self, model: nn.Module, head: str, arch: str) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.arch = arch

    def features(self, images: Tensor) -> Tensor:
        """Return (B, F). Raises `MeguError` when the model does more after its last linear layer than return its output."""
        seen: list[tuple[Tensor, Tensor]] = []
        layer = self.model.get_submodule(self.head)
        hook = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
        try:
            logits = self.model(images)
        finally:
            hook.remove()
        if len(seen) != 1 or seen[0][0].ndim != 2 or not (logits is seen[0][1] or torch.equal(logits, seen[0][1])):
            raise MeguError(
                f"{self.arch} does not end in its last linear layer ({self.head})",
                "give the model methods features and classify",
            )
        return seen[0][0]

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.model.get_submodule(self.head)(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.load_state_dict(*args, **kwargs)


def check_output(model: nn.Module, arch: str, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Run the model on one blank image (C, H, W), in evaluation mode.

    Raises `MeguError` when it cannot take the image, or returns another number of classes.
    """
    was_training = model.training
    model.eval()
    device = next((entry.device for entry in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            features = model.features(torch.zeros(1, *shape, device=device))  # type: ignore[operator]
            logits = model.classify(features)  # type: ignore[operator]
    except MeguError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MeguError(
            f"{arch} cannot take an image of {shape[0]} x {shape[1]} x {shape[2]} (channels, height, width): {reason[0]}",
            "give a model of this data set, or change data.name",
        ) from error
    finally:
        model.train(was_training)
    if tuple(logits.shape) != (1, num_classes):
        answers = logits.shape[-1] if logits.ndim == 2 else f"something of shape {tuple(logits.shape)} for"
        raise MeguError(
            f"{arch} answers {answers} classes, the data set has {num_classes}",
            "give a model of this data set, or change data.name",
        )
