"""The architectures. A model takes normalised images (B, C, H, W) and returns logits (B, K); ``features`` returns the penultimate (B, F).

To add one, write its file and add its entry to `ARCHITECTURES`. A user's own needs no change here: it is specified by its import path,
``package.module:function``, or is an entry point of the group "megu.models" (`megu.core.plugins`); both are called with
(num_classes, channels).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from megu.core.errors import MeguError
from megu.core.plugins import plugins
from megu.core.seeds import derive, positions, process_wide
from megu.models import anew, foreign
from megu.models.compact import compact_resnet
from megu.models.resnet import ResNet18
from megu.models.vit import TinyViT
from megu.models.vit_b_16 import vit_b_16

Size = tuple[int, int]


class Classifier(Protocol):
    """What every model here offers in addition to ``nn.Module``."""

    def features(self, images: Tensor) -> Tensor: ...

    def classify(self, features: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Architecture:
    """build: ``(num_classes, channels) -> model``, with the images' (height, width) as a third argument when ``sized``.

    takes: which images it accepts, in words.
    """

    build: Callable[..., nn.Module]
    takes: str
    sized: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "resnet-compact": Architecture(compact_resnet, "any size of at least 8 x 8; sized for two CPU cores"),
    "resnet18": Architecture(ResNet18, "any size of at least 8 x 8; made for 32 x 32"),
    "vit-tiny": Architecture(TinyViT, "the size it was built for, in patches of 4 x 4; made for 32 x 32", sized=True),
    "vit-b-16": Architecture(vit_b_16, "any size, brought to 224 x 224 inside; needs torchvision"),
}

#: Our own names.
MODELS: tuple[str, ...] = tuple(ARCHITECTURES)
#: The entry point group through which other packages provide theirs.
GROUP = "megu.models"


def names() -> list[str]:
    """Return every architecture that has a name: ours, then those that other packages provide."""
    return [*ARCHITECTURES, *plugins(GROUP, ARCHITECTURES)]


def exists(arch: str) -> bool:
    """Return whether ``arch`` names an architecture, or could be an import path."""
    return arch in ARCHITECTURES or foreign.is_path(arch) or arch in names()


def architecture(arch: str) -> Architecture:
    """Return the architecture with that name, or the one at an import path.

    Raises `MeguError` for a name that is neither, and for a plugin or a path that cannot be used.
    """
    if arch in ARCHITECTURES:
        return ARCHITECTURES[arch]
    if foreign.is_path(arch):
        return _foreign(arch, foreign.find(arch))
    if plugin := plugins(GROUP, ARCHITECTURES).get(arch):
        return _foreign(arch, plugin.load(lambda found: "" if callable(found) else "not a function of (num_classes, channels)"))
    raise MeguError(
        f"there is no architecture {arch!r}", f"the ones here are {', '.join(names())}; your own is package.module:function"
    )


def _foreign(arch: str, function: Callable[..., object]) -> Architecture:
    """Wrap the user's own function: it is called without the image size, but tried with an image of that size."""

    def fresh(num_classes: int, channels: int, image_size: Size) -> nn.Module:
        model = foreign.adopt(foreign.call(function, arch, num_classes, channels), arch)
        foreign.check_output(model, arch, num_classes, (channels, *image_size))
        return model

    return Architecture(fresh, "as its author says", sized=True)


def brought_by(arch: str) -> tuple[Path | None, str | None]:
    """Return where an architecture that is not ours comes from: the folder or file of the user's package, or the requirement
    (name==version) of an installed plugin."""
    if arch in ARCHITECTURES:
        return None, None
    if foreign.is_path(arch):
        return foreign.package(arch), None
    plugin = plugins(GROUP, ARCHITECTURES).get(arch)
    return None, f"{plugin.distribution}=={plugin.version}" if plugin else None


def code(arch: str) -> Mapping[str, str]:
    """Return digests of the source of an architecture that is not ours (`megu.core.sources` covers ours)."""
    if arch in ARCHITECTURES:
        return {}
    if foreign.is_path(arch):
        return foreign.code(arch)
    plugin = plugins(GROUP, ARCHITECTURES).get(arch)
    return plugin.sources() if plugin else {}


def build(
    arch: str, num_classes: int, channels: int, seed: int, image_size: Size = (32, 32), *, pretrained: bool = False
) -> nn.Module:
    """Return a freshly initialised model, the same for the same seed whatever was drawn before.

    Raises `MeguError` for an unknown architecture, and for a user's own that does not accept such images, returns another
    number of classes or does not make a new network each time.
    """
    return seeded(lambda: fresh(arch, num_classes, channels, image_size, pretrained=pretrained), seed)


def fresh(arch: str, num_classes: int, channels: int, image_size: Size = (32, 32), *, pretrained: bool = False) -> nn.Module:
    """Return a newly initialised model, drawn from the process-wide generators; raises as `build` does.

    pretrained: declares that the user's function starts from weights that were made elsewhere (`megu.models.anew`).
    """
    model = blank(arch, num_classes, channels, image_size)
    if arch not in ARCHITECTURES:
        anew.check(lambda: blank(arch, num_classes, channels, image_size), model, arch, pretrained)
    return model


def blank(arch: str, num_classes: int, channels: int, image_size: Size = (32, 32)) -> nn.Module:
    """Return a model to load weights into. Where a network has to start from nothing, use `fresh`, which makes sure of it."""
    chosen = architecture(arch)
    return chosen.build(num_classes, channels, *([image_size] if chosen.sized else []))


def seeded(fresh: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return what ``fresh`` makes when ``seed`` determines everything that it draws; the generators are restored afterwards."""
    with process_wide(derive(seed, "weights")):
        model = fresh()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def draws(model: nn.Module, image: tuple[int, int, int]) -> bool:
    """Return whether a model draws random numbers in training (dropout, say). image: (C, H, W)."""
    model = copy.deepcopy(model).train()
    with torch.no_grad(), process_wide(0):
        before = positions()
        model(torch.zeros(2, *image))
        return positions() != before


def parameters(arch: str, num_classes: int, channels: int, image_size: Size) -> int:
    """Return how many weights a model has, without allocating them."""
    with process_wide(0), torch.device("meta"):
        model = blank(arch, num_classes, channels, image_size)
    return sum(weight.numel() for weight in model.parameters())


@dataclass(frozen=True)
class Listed:
    """One line of `listing`. parameters: their number in a model for that data set, None when it cannot be built here; why: the reason."""

    name: str
    parameters: int | None
    takes: str
    why: str = ""


def listing(num_classes: int, channels: int, image_size: Size) -> list[Listed]:
    """Return every architecture that has a name, as it would be for a data set of that shape."""
    found = []
    for name in names():
        try:
            found.append(Listed(name, parameters(name, num_classes, channels, image_size), architecture(name).takes))
        except MeguError as error:
            found.append(Listed(name, None, "", str(error)))
    return found
