"""The registry of unlearning methods. To add one, write its file and add its name here, nothing else.

A package of your own needs no change here: it provides one through the entry point group ``megu.methods`` (`megu.core.plugins`). Its
object is a `Method`, like the ``METHOD`` of every file in this folder.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from megu.core import plugins, sources
from megu.unlearning.methods.context import NEEDS, Context, Method, Span

GROUP = "megu.methods"

#: The package's own methods: each the ``METHOD`` of the file with its name.
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
    """Return why an object cannot be a method; "" when it can."""
    if not isinstance(found, Method):
        return f"it is a {type(found).__name__}, not a megu.unlearning.methods.Method"
    if not (isinstance(found.params, type) and dataclasses.is_dataclass(found.params)):
        return "its params is not a dataclass"
    if any(f.default is f.default_factory is dataclasses.MISSING for f in dataclasses.fields(found.params) if f.init):
        return "a parameter of it has no default"
    base = found.params()
    if lost := [name for name in found.main if type(getattr(base, name, None)) not in (int, float)]:
        return f"{lost[0]} is searched (main), but is not a number among its parameters"
    unknown = sorted(set(found.needs) - set(NEEDS))
    return f"it needs {', '.join(unknown)}, but a method can need only {', '.join(NEEDS)}" if unknown else ""


REGISTRY = plugins.Registry(GROUP, METHODS, fault)
names, lookup = REGISTRY.names, REGISTRY.lookup


def methods() -> dict[str, Method]:
    """Return every usable method by name; an unusable plugin is left out with a warning."""
    return {**METHODS, **REGISTRY.installed()}


def code(name: str) -> dict[str, str]:
    """Return what a result of the method depends on: the digest of each of our modules that it runs, and a plugin's own and its version."""
    return sources.closure(METHODS[name].run.__module__) if name in METHODS else REGISTRY.plugin(name).sources()


def described(name: str, method: Method) -> dict[str, Any]:
    """Describe the method as JSON: name, what it does, paper, parameters with their defaults, what it needs, what it costs."""
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
