"""A pipeline as a table: each row a stage, what it takes and when it runs. `walk` goes through it with whatever carries a stage out.

A run computes the rows (`tasks.run.engine.Executor`), a plan says what it would do (`tasks.run.engine.Planner`), a benchmark takes the
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

#: What the rows have made, by the name of the result; a list where a row runs several times. A row that is passed over leaves None, or [].
Results = dict[str, Any]
#: A key of the configuration ("noise", "unlearn.method"), or what makes a value of the whole of it.
Setting = str | Callable[[Project, Config], Any]
Condition = Callable[[Config], Any]
#: The arguments of each time that a row runs, its ``label`` among them.
Repeated = Callable[[Config], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Row:
    """A stage in a pipeline; `row` makes it.

    result: the name by which later rows take what it makes. Two rows may have one, under conditions that exclude each other.
    takes: the stage's name for it -> the name of an earlier result, or ``seed`` or ``device``, which are the whole run's.
    settings: the stage's other arguments. arguments: makes all of those at once.
    label: what the step is called; the stage's name if empty. when: all must hold, or the row is passed over.
    each: the results for each of which it runs, as the stage's ``model``; ``label`` is then what the model's own label goes after.
    repeated: the times that it runs.
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
        """The row under one more condition."""
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
    """A row. takes: what the stage takes, by one name ("data") or two ("model=original"), between spaces; each: names between spaces."""
    named = {name: other or name for name, _, other in (entry.partition("=") for entry in takes.split())}
    return Row(result, stage, named, settings, arguments, label, (when,) if when else (), tuple(each.split()), repeated)


def walk(run: Run, project: Project, config: Config, rows: Sequence[Row], made: Results | None = None) -> Results:
    """Take, in order, each row that a configuration wants; returns ``made`` and what they made. made: by rows before these."""
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
    """The models that a row runs for, and what each time is called: the row's label, and what the model is called."""
    found: list[dict[str, Any]] = []
    for name in entry.each:
        made = results[name] if isinstance(results[name], list) else [results[name]]
        models = [model for model in made if model is not None]
        found += [
            {"model": model, "label": f"{entry.label} {label}"}
            for model, label in zip(models, labels.get(name, ()), strict=True)
        ]
    return found
