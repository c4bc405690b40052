"""What other installed packages add to megu: Python entry points, looked up by name and imported only on demand.

A package declares what it adds in its own ``pyproject.toml``::

    [project.entry-points."megu.methods"]
    mine = "my_package.my_method:METHOD"

The groups are `GROUPS`. A plugin that cannot be used is reported, with the package it comes from; it never breaks
anything else, and it cannot take the name of something built in.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from megu.core import sources
from megu.core.errors import MeguError

T = TypeVar("T")

GROUPS = ("megu.methods", "megu.models", "megu.labelers", "megu.datasets", "megu.metrics")


@dataclass(frozen=True)
class Plugin:
    """One entry point. distribution, version: of the package it comes from."""

    name: str
    group: str
    distribution: str
    version: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"the {self.group} plugin {self.name!r} of {self.distribution} {self.version} ({self.entry.value})"

    def load(self, fault: Callable[[Any], str]) -> Any:
        """Import it. fault: says what is wrong with the object, "" when nothing is.

        Raises `MeguError` naming the package, whatever went wrong in there.
        """
        fix = f"mend or remove {self.distribution}"
        try:
            found = self.entry.load()
        except Exception as error:  # third-party code may raise anything
            raise MeguError(f"{self} cannot be imported ({type(error).__name__}: {error})", fix) from error
        wrong = fault(found)
        if wrong:
            raise MeguError(f"{self} is not usable: {wrong}", fix)
        return found

    def sources(self) -> dict[str, str]:
        """Return what a cached result made by it depends on: its package's version, the code of its module and everything that this
        imports from
        its own top-level package and from megu, and the versions of the other packages that these import.
        """
        found = {f"package {self.distribution}": self.version}
        top = self.entry.module.split(".")[0]
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            spec = None
        places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])] if spec else []
        if places:
            found = sources.closure(self.entry.module, others={top: Path(places[0]).parent}) | found
        return found


def _path() -> tuple[tuple[str, int], ...]:
    """Return the folders in which packages are looked up, each with its modification time (ns): installing or removing a package
    changes one."""

    def changed(folder: str) -> int:
        try:
            return os.stat(folder or os.curdir).st_mtime_ns
        except OSError:
            return 0

    return tuple((folder, changed(folder)) for folder in sys.path)


@cache
def _entries(look: Callable[..., EntryPoints], group: str, path: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Cached as long as ``path`` is unchanged: reading the metadata of every package takes 6 ms, and a benchmark asks for each cell."""
    return look(group=group)


def plugins(group: str, builtin: Collection[str] = ()) -> dict[str, Plugin]:
    """Return every entry point of the group by name, nothing imported. Built-in names and duplicates of earlier names are left out."""
    found: dict[str, Plugin] = {}
    for entry in sorted(_entries(entry_points, group, _path()), key=lambda entry: (entry.name, entry.value)):
        if entry.name in builtin or entry.name in found:
            continue
        owner = entry.dist
        name, version = (owner.name, owner.version) if owner else ("an unknown package", "")
        found[entry.name] = Plugin(entry.name, group, name, version, entry)
    return found


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Everything of one kind, by name: megu's own, and what plugins of the group add. fault: says why an object is not of that kind."""

    group: str
    builtin: Mapping[str, T]
    fault: Callable[[Any], str]

    def names(self) -> list[str]:
        """Return every name, the plugins' last; no plugin is imported for it."""
        return [*self.builtin, *plugins(self.group, self.builtin)]

    def lookup(self, name: str) -> T:
        """Return the entry of a name, built in or a plugin's.

        Raises ``KeyError`` when there is none, `MeguError` when it is a plugin's and cannot be used.
        """
        if name in self.builtin:
            return self.builtin[name]
        loaded: T = self.plugin(name).load(self.fault)
        return loaded

    def plugin(self, name: str) -> Plugin:
        """Return the plugin of a name; raises ``KeyError`` when there is none."""
        return plugins(self.group, self.builtin)[name]

    def usable(self) -> tuple[dict[str, T], list[str]]:
        """Return the plugins' entries that can be loaded, and a line for each that cannot."""
        found, problems = {}, []
        for name, plugin in plugins(self.group, self.builtin).items():
            try:
                found[name] = plugin.load(self.fault)
            except MeguError as error:
                problems.append(str(error))
        return found, problems

    def installed(self) -> dict[str, T]:
        """Return the plugins' entries that can be loaded; warn about each that cannot."""
        found, problems = self.usable()
        for problem in problems:
            warnings.warn(problem, stacklevel=3)
        return found
