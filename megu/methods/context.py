"""What every unlearning method is given beside the model and the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from megu.data.tensors import ImageSet
from megu.noise import NoiseBank
from megu.perturbing import Perturbing


@dataclass(frozen=True)
class Context:
    """params: the method's own. forgotten: classes that leave the label space (empty for sub-class and random requests).

    perturbing: of the forget set, in its order. checkpoint: where a long method leaves its state and goes on from.
    """

    params: Any
    seed: int
    num_classes: int
    forgotten: tuple[int, ...]
    perturbing: Perturbing
    noise: NoiseBank
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Method:
    """params: the dataclass of its parameters. run: ``(model, forget, retain, context) -> model``; the given model stays as it is."""

    params: type[Any]
    run: Callable[[nn.Module, ImageSet, ImageSet, Context], nn.Module]
