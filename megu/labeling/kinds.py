"""Which labelers there are. Adding one is: write its file, add its name here.

Or nothing here at all: a package of your own brings one by the entry point group ``megu.labelers`` (`megu.core.plugins`). Its object is a
`Kind`, as the ``KIND`` of `megu.labeling.prototype`.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from megu.core import plugins, sources
from megu.labeling.protocol import Kind

GROUP = "megu.labelers"
#: The parameters that every labeler has: how many exemplars and references a class it is shown, and which ones.
SHARED = ("exemplars", "references", "seed")


#: Those of the package itself: each the ``KIND`` of its file. Looked up by name, so that what one judged does not depend on another's code.
KINDS: dict[str, Kind] = {
    name: import_module(f"megu.labeling.{module}").KIND
    for name, module in {"prototype": "prototype", "ollama": "ollama.params"}.items()
}


def fault(found: Any) -> str:
    """What keeps an object from being a labeler; "" when nothing does."""
    if not isinstance(found, Kind):
        return f"it is a {type(found).__name__}, not a megu.labeling.protocol.Kind"
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


REGISTRY = plugins.Registry(GROUP, KINDS, fault)
names, lookup = REGISTRY.names, REGISTRY.lookup


def labelers() -> dict[str, type[Any]]:
    """Every usable labeler by name, with the class of its parameters; a plugin that is not usable is warned about and left out."""
    return {name: kind.params for name, kind in {**KINDS, **REGISTRY.installed()}.items()}


def code(name: str) -> dict[str, str]:
    """What a judgement depends on beside the parameters: the labeler's modules, and of a plugin its version too."""
    return sources.closure(KINDS[name].params.__module__) if name in KINDS else REGISTRY.plugin(name).sources()
