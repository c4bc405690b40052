"""The unlearning methods. Adding one is: write its file, add its name here, and nothing else.

Or nothing here at all: a package of your own brings one by the entry point group ``megu.methods`` (`megu.core.plugins`). Its object is a
`Method`, as the ``METHOD`` of every file beside this one.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from megu.core import plugins, sources
from megu.unlearning.methods.context import NEEDS, Context, Method, Span

GROUP = "megu.methods"

#: Those of the package itself: each the ``METHOD`` of the file of its name.
METHODS: dict[str, Method] = {
    name.rpartition(".")[2]: import_module(f"megu.unlearning.methods.{name}").METHOD
    for name in (
        "megu",
        "baselines.retrain",
        "baselines.finetune",
        "baselines.neggrad_plus",
        "baselines.random_labels",
        "baselines.unsir",
        "baselines.bad_teacher",
        "baselines.scrub",
        "baselines.ssd",
        "baselines.salun",
        "baselines.boundary_shrink",
        "baselines.delete",
        "megu_published",
    )
}


def fault(found: Any) -> str:
    """What keeps an object from being a method; "" when nothing does."""
    if not isinstance(found, Method):
        return f"it is a {type(found).__name__}, not a megu.unlearning.methods.Method"
    if not (isinstance(found.params, type) and dataclasses.is_dataclass(found.params)):
        return "its params is no dataclass"
    if any(f.default is f.default_factory is dataclasses.MISSING for f in dataclasses.fields(found.params) if f.init):
        return "a parameter of it has no default"
    base = found.params()
    if lost := [name for name in found.main if type(getattr(base, name, None)) not in (int, float)]:
        return f"{lost[0]} is searched (main), but no number among its parameters"
    unknown = sorted(set(found.needs) - set(NEEDS))
    return f"it needs {', '.join(unknown)}, but a method can need only {', '.join(NEEDS)}" if unknown else ""


REGISTRY = plugins.Registry(GROUP, METHODS, fault)
names, lookup = REGISTRY.names, REGISTRY.lookup


def methods() -> dict[str, Method]:
    """Every usable method; a plugin that is not usable is warned about and left out."""
    return {**METHODS, **REGISTRY.installed()}


def code(name: str) -> dict[str, str]:
    """What a result of the method depends on: the digest of each module of ours it runs, and for a plugin its own and its version."""
    return sources.closure(METHODS[name].run.__module__) if name in METHODS else REGISTRY.plugin(name).sources()


def described(name: str, method: Method) -> dict[str, Any]:
    """The method as JSON: name, what it does, paper, parameters with their defaults, what it needs, what it costs."""
    return {
        "name": name,
        "title": method.title,
        "paper": method.paper,
        "params": dataclasses.asdict(method.params()),
        "main": list(method.main),
        "needs": list(method.needs),
        "cost": method.cost,
    }


__all__ = ["METHODS", "NEEDS", "Context", "Method", "Span", "code", "described", "lookup", "methods", "names"]
