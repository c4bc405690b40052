"""Expand a benchmark file into its cells: one configuration for each method, target, seed and swept value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megu.bench.config import Bench
from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.errors import MeguError
from megu.data.scope import RequestScope
from megu.unlearning.methods import names

#: The method whose result is the reference by construction: it has a row, but no cell that would train it a second time.
RETRAIN = "retrain"


@dataclass(frozen=True)
class Variant:
    """The method of a row. label: its name in the table. method: one of `megu.unlearning.methods`. settings: section.key -> value."""

    label: str
    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of the benchmark. swept: the swept key and its value; None outside a sweep."""

    variant: Variant
    target: str
    seed: int
    config: Config
    swept: tuple[str, Any] | None = None

    @property
    def label(self) -> str:
        point = f", {self.swept[0]}={self.swept[1]}" if self.swept else ""
        return f"{self.target}, {self.variant.label}{point}, seed {self.seed}"


def variants(bench: Bench) -> list[Variant]:
    """Return the rows' methods in order.

    Raises `MeguError` for an unknown method or key of a variant, and for two variants with the same name.
    """
    entries = names() if bench.methods == "all" else bench.methods
    found = [_variant(entry) for entry in entries]
    labels = [variant.label for variant in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise MeguError(f"methods: two are called {twice[0]!r}", "give each a name of its own")
    return found


def _variant(entry: str | Mapping[str, Any]) -> Variant:
    if isinstance(entry, str):
        entry = {"name": entry}
    if unknown := sorted(set(entry) - {"name", "method", "set"}):
        raise MeguError(f"methods: a variant has no key {unknown[0]!r}", "it has name, method and set")
    label = str(entry.get("name", entry.get("method", "")))
    settings = dict(entry.get("set") or {})
    method = str(entry.get("method", settings.pop("unlearn.method", label)))
    if method not in names():
        raise MeguError(
            f"methods: there is no method {method!r}",
            f"name one of {', '.join(names())}, or write a variant as {{name: …, method: …, set: {{section.key: value}}}}",
        )
    return Variant(label or method, method, settings)


def expand(bench: Bench) -> list[Cell]:
    """Return every cell, with those that share an original and a retrain next to each other (seed by seed, target by target).

    The plain retrain has no cell, unless the reference is given: the reference, which every cell is compared with, is that training.

    Raises
    ------
    MeguError: a configuration is not valid; the error names its cell.
    """
    points: list[tuple[str, Any] | None] = [(key, value) for key, values in bench.sweep.items() for value in values]
    found = variants(bench)
    cells = []
    for seed in bench.seeds:
        for target in bench.targets:
            for variant in found:
                made = [_cell(bench, variant, target, seed, point) for point in points or [None]]
                given = made[0].config.reference.provided
                if variant.method == RETRAIN and not variant.settings and len(found) > 1 and not given:
                    continue
                cells += made
    if len(bench.targets) * len(bench.seeds) > 1 and any(cell.config.reference.provided for cell in cells):
        raise MeguError(
            f"{bench.name}: a given retrain (reference) is of one forget set and one seed, and the benchmark has {len(bench.targets)} targets "
            f"and {len(bench.seeds)} seeds",
            "keep one target and one seed, or leave it out of `base` to have the retrains trained here",
        )
    if len({cell.target for cell in cells}) < len(bench.targets):
        raise MeguError(f"{bench.name}: two targets have one name", "put each in a benchmark of its own, or leave one out")
    return cells


def _cell(bench: Bench, variant: Variant, target: Mapping[str, Any], seed: int, point: tuple[str, Any] | None) -> Cell:
    values = {name: dict(entry) if isinstance(entry, Mapping) else entry for name, entry in bench.base.items()}
    own = values.get("unlearn") or {}
    same = own.get("method", "megu") == variant.method
    values["unlearn"] = {**(own if same else {}), "method": variant.method}
    values["forget"] = {**(values.get("forget") or {}), **target}
    values["seed"] = seed
    for key, value in [*variant.settings.items(), *([point] if point else [])]:
        section, dot, inner = str(key).partition(".")
        if not dot:
            values[section] = value
            continue
        values[section] = {**(values.get(section) or {}), inner: value}
    where = f"{bench.name}: {variant.label}" + (f" at {point[0]}={point[1]}" if point else "")
    config = configuration.parse(values, where)
    if not config.reference.enabled:
        raise MeguError(f"{bench.name}: reference.enabled is false", "a benchmark compares with the retrain: leave it out")
    return Cell(variant, target_name(config), seed, config, point)


def target_name(config: Config) -> str:
    """Return what a cell forgets, in a few words."""
    scope = RequestScope.of(vars(config.forget))
    single = [f"{scope.samples} {'random' if scope.drawn else 'images'}"] if scope.samples else []
    return " + ".join([*scope.names, *single])
