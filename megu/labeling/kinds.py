"""The registry of labelers. To add one, write its file and add its name here.

A package of your own needs no change here: it provides one through the entry point group ``megu.labelers`` (`megu.core.plugins`). Its
object is a `Kind`, like the ``KIND`` of `megu.labeling.prototype`.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from megu.core import plugins, sources
from megu.labeling.protocol import Kind

GROUP = "megu.labelers"
#: The parameters that every labeler has: how many exemplars and references per class it is shown, and which ones.
SHARED = ("exemplars", "references", "seed")


#: The package's own labelers: each the ``KIND`` of its file. They are looked up by name, so that no result depends on another's code.
KINDS: dict[str, Kind] = {
    name: import_module(f"megu.labeling.{module}").KIND
    for name, module in {"prototype": "prototype", "ollama": "ollama.params"}.items()
}


def fault(found: Any) -> str:
    """Return why an object cannot be a labeler; "" when it can."""
    if not isinstance(found, Kind):
        return f"it is a {type(found).__name__}, not a megu.labeling.protocol.Kind"
    if not callable(found.make):
        return "its make cannot be called"
    if not (isinstance(found.params, type) and dataclasses.is_dataclass(found.params)):
        return "its params is not a dataclass"
    fields = {entry.name: entry for entry in dataclasses.fields(found.params)}
    if lost := [name for name in SHARED if name not in fields]:
        return f"its params lacks {', '.join(lost)}"
    return (
        "a parameter of it has no default"
        if any(entry.default is entry.default_factory is dataclasses.MISSING for entry in fields.values() if entry.init)
        else ""
    )


REGISTRY = plugins.Registry(GROUP, KINDS, fault)
names, lookup = REGISTRY.names, REGISTRY.lookup


def labelers() -> dict[str, type[Any]]:
    """Return every usable labeler by name, with the class of its parameters; an unusable plugin is left out with a warning."""
    return {name: kind.params for name, kind in {**KINDS, **REGISTRY.installed()}.items()}


def code(name: str) -> dict[str, str]:
    """Return what a labeler's result depends on besides its parameters: its modules, and for a plugin also its version."""
    return sources.closure(KINDS[name].params.__module__) if name in KINDS else REGISTRY.plugin(name).sources()
