"""Which labelers there are. Adding one is: write its file, add its name here.

Or nothing here at all: a package of your own brings one by the entry point group ``megu.labelers`` (`megu.core.plugins`). Its object is a
`Kind`, as the ``KIND`` of `megu.labeling.prototype`.
"""

from __future__ import annotations

import dataclasses
import warnings
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
