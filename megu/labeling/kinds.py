"""Which labelers there are. Adding one is: write its file, add its entry here.

Or nothing here at all: a package of your own brings one by the entry point group ``megu.labelers`` (`megu.core.plugins`). Its object is a
`Kind`, as that of the prototype labeler.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megu.core import plugins, sources
from megu.labeling import prototype
from megu.labeling.ollama.params import OllamaParams
from megu.labeling.protocol import Labeler

if TYPE_CHECKING:
    import torch

GROUP = "megu.labelers"
#: The parameters that every labeler has: how many exemplars and references a class it is shown, and which ones.
SHARED = ("exemplars", "references", "seed")


@dataclass(frozen=True)
class Kind:
    """A sort of labeler. params: a frozen dataclass, each of its fields with a default, `SHARED` among them. make: builds the labeler from them
    and the device to compute on; None where it is a server that is asked, by stages of its own (`tasks.ollama`)."""

    params: type[Any]
    make: Callable[[Any, torch.device], Labeler] | None


KINDS: dict[str, Kind] = {
    "prototype": Kind(prototype.PrototypeParams, prototype.make),
    "ollama": Kind(OllamaParams, None),
}


def names() -> list[str]:
    """Every labeler by name, the plugins' last; no plugin is imported for it."""
    return [*KINDS, *plugins.plugins(GROUP, KINDS)]


def lookup(name: str) -> Kind:
    """The labeler of that name, built in or a plugin's.

    Raises ``KeyError`` when there is none, `MeguError` when it is a plugin's and cannot be used.
    """
    if name in KINDS:
        return KINDS[name]
    loaded: Kind = plugins.plugins(GROUP, KINDS)[name].load(fault)
    return loaded


def labelers() -> dict[str, type[Any]]:
    """Every usable labeler by name, with the class of its parameters; a plugin that is not usable is warned about and left out."""
    found, problems = plugins.usable(GROUP, KINDS, fault)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return {name: kind.params for name, kind in {**KINDS, **found}.items()}


def code(name: str) -> dict[str, str]:
    """What a judgement depends on beside the parameters: the labeler's modules, and of a plugin its version too."""
    if name in KINDS:
        return sources.closure(KINDS[name].params.__module__)
    return plugins.plugins(GROUP, KINDS)[name].sources()


def fault(found: Any) -> str:
    """What keeps an object from being a labeler; "" when nothing does."""
    if not isinstance(found, Kind):
        return f"it is a {type(found).__name__}, not a megu.labeling.kinds.Kind"
    if not callable(found.make):
        return "its make cannot be called"
    if not (isinstance(found.params, type) and dataclasses.is_dataclass(found.params)):
        return "its params is no dataclass"
    fields = {entry.name: entry for entry in dataclasses.fields(found.params)}
    if lost := [name for name in SHARED if name not in fields]:
        return f"its params lacks {', '.join(lost)}"
    return (
        "a parameter of it has no default"
        if any(entry.default is entry.default_factory is dataclasses.MISSING for entry in fields.values() if entry.init)
        else ""
    )
