"""A pipeline as a table: each row is a stage, its inputs and its conditions. `walk` goes through it with anything that can run a stage.

A run computes the rows (`tasks.run.engine.Executor`), a plan shows what it would do (`tasks.run.engine.Planner`), a benchmark takes the
rows of many runs side by side (`tasks.run.schedule.Inspection`): one table, three ways to carry it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from megu.config.tree import Config
from megu.core.project import Project
from megu.core.stages import Device, Stage
from tasks.run.engine import Run

#: The results of the rows, by name; a list if a row runs several times. A skipped row leaves None, or [].
Results = dict[str, Any]
#: A key of the configuration ("noise", "unlearn.method"), or a function that computes a value from the whole configuration.
Setting = str | Callable[[Project, Config], Any]
Condition = Callable[[Config], Any]
#: The arguments of each repetition of a row, including its ``label``.
Repeated = Callable[[Config], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Row:
    """A stage in a pipeline; `row` makes it.

    result: the name under which later rows use its result. Two rows may share one, under conditions that exclude each other.
    takes: the stage's argument name -> the name of an earlier result, or ``seed`` or ``device``, which belong to the whole run.
    settings: the stage's other arguments. arguments: makes all of those at once.
    label: the name of the step; the stage's name if empty. when: all must hold, or the row is skipped.
    each: the results for each of which it runs, as the stage's ``model``; ``label`` then precedes the model's own label.
    repeated: the arguments of each repetition.
    """

    result: str
    stage: Stage
    takes: Mapping[str, str]
    settings: Mapping[str, Setting]
    arguments: Callable[[Project, Config], Mapping[str, Any]] | None = None
    label: str | Callable[[Config], str] = ""
    when: tuple[Condition, ...] = ()
    each: tuple[str, ...] = ()
    repeated: Repeated | None = None

    def only(self, when: Condition) -> Row:
        """Return the row with one more condition."""
        return replace(self, when=(*self.when, when))


def row(
    result: str,
    stage: Stage,
    takes: str = "",
    arguments: Callable[[Project, Config], Mapping[str, Any]] | None = None,
    *,
    label: str | Callable[[Config], str] = "",
    when: Condition | None = None,
    each: str = "",
    repeated: Repeated | None = None,
    **settings: Setting,
) -> Row:
    """Make a row. takes: the stage's inputs, separated by spaces, each one name ("data") or two ("model=original"); each: names
    separated by spaces."""
    named = {name: other or name for name, _, other in (entry.partition("=") for entry in takes.split())}
    return Row(result, stage, named, settings, arguments, label, (when,) if when else (), tuple(each.split()), repeated)


def walk(run: Run, project: Project, config: Config, rows: Sequence[Row], made: Results | None = None) -> Results:
    """Run, in order, each row that a configuration wants; return ``made`` and their results. made: the results of earlier rows."""
    results: Results = {"seed": config.seed, "device": Device.of(config.device, config.deterministic), **(made or {})}
    labels: dict[str, list[str]] = {}
    for entry in rows:
        several = bool(entry.each or entry.repeated)
        results.setdefault(entry.result, [] if several else None)
        if not all(holds(config) for holds in entry.when):
            continue
        given = {name: results[other] for name, other in entry.takes.items()}
        given |= {name: _value(setting, project, config) for name, setting in entry.settings.items()}
        given |= entry.arguments(project, config) if entry.arguments else {}
        if not several:
            label = entry.label(config) if callable(entry.label) else entry.label
            labels[entry.result] = [label or entry.result]
            results[entry.result] = run(entry.stage, label=label, **given)
            continue
        times = entry.repeated(config) if entry.repeated else _models(entry, results, labels)
        labels[entry.result] = [more["label"] for more in times]
        results[entry.result] = [run(entry.stage, **{**given, **more}) for more in times]
    return results


def _value(setting: Setting, project: Project, config: Config) -> Any:
    return reduce(getattr, setting.split("."), config) if isinstance(setting, str) else setting(project, config)


def _models(entry: Row, results: Results, labels: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the models that a row runs for, and the label of each: the row's label and the model's."""
    found: list[dict[str, Any]] = []
    for name in entry.each:
        made = results[name] if isinstance(results[name], list) else [results[name]]
        models = [model for model in made if model is not None]
        found += [
            {"model": model, "label": f"{entry.label} {label}"}
            for model, label in zip(models, labels.get(name, ()), strict=True)
        ]
    return found
