"""A benchmark file: ``bench/*.yaml`` as a frozen, strict model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from megu.config import tree as configuration
from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.core.settings import scalars, sections
from megu.data.splits import ForgetParams

#: A method under its own name with its own defaults, or {name, method, set}: a variant under a name of its own.
Entry = str | dict[str, Any]


#: What a variant or a sweep may change: the parts of the method. Original, data and retrain are the same for all that are compared.
SECTIONS = ("labeling", "perturbing", "noise", "unlearn")
OF_METHOD = f"a section.key of {', '.join(SECTIONS)}, so that all are compared with the same retrain"


def of_method(key: str) -> bool:
    """Return whether a ``section.key`` belongs to the method."""
    section, dot, inner = key.partition(".")
    return section in SECTIONS and bool(dot and inner) and "." not in inner


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How the stages are run.

    kind: "serial" (one stage after the other, in this process), "threads" (in this process; not for models that draw random numbers in
    training, as dropout does: threads share the generators) or "dask" (processes of Prefect's Dask task runner;
    ``pip install 'megu[dask]'``). workers: how many run at once; with "dask" and no address, the processes of a local cluster.
    address: of a running Dask scheduler; its workers must see the project's folder under the same path.
    threads_per_worker: PyTorch's threads in each worker. None: PyTorch's own choice in a serial run, 1 in the others, since two trainings
    that each use all threads are many times slower than one after the other. The same number gives the same bits, however many workers.
    """

    __pydantic_config__ = STRICT

    kind: Literal["serial", "threads", "dask"] = "serial"
    address: str | None = None
    workers: int = 2
    threads_per_worker: int | None = None

    def __post_init__(self) -> None:
        check("workers", self.workers, 1 <= self.workers <= 1024, "between 1 and 1024")
        threads = self.threads_per_worker
        check("threads_per_worker", threads, threads is None or threads >= 1, "at least 1, or null")
        check("address", self.address, self.address is None or self.kind == "dask", "left out but for kind: dask")

    @property
    def slots(self) -> int:
        """How many stages may run at once."""
        return 1 if self.kind == "serial" else self.workers

    @property
    def threads(self) -> int | None:
        """PyTorch's threads in each worker; None leaves them as they are."""
        return self.threads_per_worker or (None if self.kind == "serial" else 1)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is compared, and on what.

    name: of the benchmark and its folder of results; by default the file's. title: one line for a person. note: what a reader
    of its page must know first.
    base: a configuration in the format of params.yaml; what a method, target or sweep does not change holds for every cell.
    methods: "all", or a list of names and variants ``{name: label, method: name, set: {section.key: value}}``. Every method has its own
    defaults; keys of ``base.unlearn`` belong to the method that ``base.unlearn.method`` names.
    targets: what is forgotten, each a (part of a) ``forget`` section. seeds: of original, split, method and retrain alike.
    sweep: section.key -> values; one key is changed at a time, while the others stay as they are.
    """

    __pydantic_config__ = STRICT

    name: str = ""
    title: str = ""
    note: str = ""
    base: dict[str, Any] = field(default_factory=dict)
    methods: Literal["all"] | tuple[Entry, ...] = "all"
    targets: tuple[dict[str, Any], ...] = ({},)
    seeds: tuple[int, ...] = (0, 1, 2)
    sweep: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    runner: Runner = Runner()

    def __post_init__(self) -> None:
        check("name", self.name, re.fullmatch(r"[\w.-]*", self.name) is not None, "letters, digits, '.', '_' and '-' only")
        check("methods", self.methods, len(self.methods) > 0, "at least one method")
        check("targets", self.targets, len(self.targets) > 0, "at least one target")
        check(
            "seeds",
            self.seeds,
            len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds),
            "different seeds, at least one",
        )
        check("seeds", self.seeds, all(0 <= seed < 2**31 for seed in self.seeds), "at least 0 and below 2**31")
        for key, values in self.sweep.items():
            check(f"sweep.{key}", values, len(values) > 0, "a list of at least one value")
            check("sweep", key, of_method(key), OF_METHOD)
        for entry in () if self.methods == "all" else self.methods:
            for key in (entry.get("set") or {}) if isinstance(entry, dict) else ():
                check("methods: set", key, of_method(key), OF_METHOD)
        check("base.seed", self.base.get("seed"), "seed" not in self.base, "left out: a benchmark has seeds")


def load(path: Path, settings: Sequence[str] = ()) -> Bench:
    """Read a benchmark file and apply ``key=value`` settings.

    A setting of one of the benchmark's own keys (``seeds=[0]``, ``runner.kind=dask``) changes the benchmark; any other
    (``train.epochs=3``) changes ``base``, as it would change a run.

    Raises
    ------
    MeguError: the file is missing or not YAML; an unknown key or a value out of range, also in ``base``.
    """
    bench: Bench = configuration.validated(Bench, read(path, settings), path.name)
    return bench


def read(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Return the file with the settings applied, in the format of a file."""
    values = sections.read(path)
    own = [entry for entry in settings if entry.partition("=")[0].strip().partition(".")[0] in Bench.__dataclass_fields__]
    rest = [entry for entry in settings if entry not in own]
    values = configuration.merged(values, own)
    base = values.get("base") or {}
    if not isinstance(base, Mapping):
        raise MeguError(f"{path.name}: base holds no sections", "write it as params.yaml is written")
    values["base"] = configuration.settled(configuration.merged(base, rest))
    return {"name": path.stem, **_settled(values)}


def _settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values, each converted to its field's type (`megu.core.settings.scalars`); those of a configuration by its keys."""
    hints = get_type_hints(Bench)

    def by_key(settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return scalars.resolve(settings, Any)
        return {key: scalars.resolve(value, configuration.kind_of(key)) for key, value in settings.items()}

    def variant(entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            return scalars.resolve(entry, str)
        return {name: by_key(value) if name == "set" else scalars.resolve(value, str) for name, value in entry.items()}

    found = {name: scalars.resolve(value, hints.get(name, Any)) for name, value in values.items() if name != "base"}
    found["base"] = values["base"]
    if isinstance(targets := values.get("targets"), list):
        found["targets"] = [scalars.resolve(target, ForgetParams) for target in targets]
    if isinstance(methods := values.get("methods"), list):
        found["methods"] = [variant(entry) for entry in methods]
    if isinstance(sweep := values.get("sweep"), Mapping):
        # Each value of a swept key has that key's type, so a list of them is not a list of its items.
        found["sweep"] = {
            key: [scalars.resolve(value, configuration.kind_of(key)) for value in entries]
            if isinstance(entries, list)
            else by_key(entries)
            for key, entries in sweep.items()
        }
    return found
