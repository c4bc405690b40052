"""What a stage of the pipeline is, what its cache key is made of, and why it has to run again.

Nothing here knows Prefect: `tasks.run.engine` runs stages as Prefect tasks and stores their results in Prefect's own cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from megu.core import sources
from megu.core.files.store import Ref, canonical_json
from megu.core.params import Means
from megu.core.project import Project

#: Increased when the content of a result, or the way a key is made, changes; every older result is then a cache miss.
FORMAT = 1

#: Parts of a key that name samples. Messages say that they changed, never their values; a cached result, a record and MLflow have
#: commitments instead (`megu.lineage.commitments`).
PRIVATE = ("forget.ids", "forget.files")

JSON = Any


@dataclass(frozen=True)
class Outcome:
    """What a stage's function returns.

    files: named references into the store. values: small JSON values that later stages or the report use.
    notes: circumstances of the computation (seconds, the provider that had the data). They may differ between runs with the same result,
    so they are cached with it, but later stages do not depend on them.
    """

    files: Mapping[str, Ref] = field(default_factory=dict)
    values: Mapping[str, JSON] = field(default_factory=dict)
    notes: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """An `Outcome` with its history, as later stages receive it and as the cache stores it.

    parts: what the cache key was made of, by name. seconds: how long the function took when it ran.
    origin: where and when that was (``flow_run_id``, ``created``).
    """

    stage: str
    parts: Mapping[str, JSON]
    files: Mapping[str, Ref]
    values: Mapping[str, JSON]
    notes: Mapping[str, JSON]
    seconds: float
    origin: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of what was computed: equal whenever files and values are equal, whatever the time and duration of the computation."""
        files = {name: ref.to_json() for name, ref in self.files.items()}
        return hashlib.sha256(canonical_json([self.stage, files, dict(self.values)])).hexdigest()

    def to_json(self) -> dict[str, JSON]:
        return {
            **dataclasses.asdict(self),
            "files": {name: ref.to_json() for name, ref in self.files.items()},
            "format": FORMAT,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> Result:
        names = {entry.name for entry in dataclasses.fields(cls)}
        known = {name: entry for name, entry in value.items() if name in names}
        return cls(**{**known, "files": {name: Ref.from_json(ref) for name, ref in value["files"].items()}})


_COMPUTING: ContextVar[str] = ContextVar("computing", default="")


def computing() -> str:
    """Return the key of the stage that is being computed; empty outside of one."""
    return _COMPUTING.get()


class Device(str):
    """A device setting in a stage's arguments, as `megu.core.device.resolve` takes it. Only its class (`megu.core.device.device_class`)
    is part of the cache key.
    """

    @classmethod
    def of(cls, name: str, deterministic: bool) -> Device:
        """Make one from the two configuration keys."""
        return cls(f"{name} deterministic" if deterministic else name)


class Code(dict[str, str]):
    """In a stage's arguments: the code behind something that the stage looks up by name, as a digest for each module."""


@dataclass(frozen=True)
class Stage:
    """A named function ``compute(project, …) -> Outcome`` whose result may be cached.

    title: what a person reads while it runs.
    says: the result in a few words, for a person.
    intact: called with a cached result whose files are all in the store; says whether what the stage leaves outside the store
    (a data set under ``data/``) is unchanged.
    """

    name: str
    title: str
    compute: Callable[..., Outcome]
    says: Callable[[Result], str] = lambda result: ""
    intact: Callable[[Project, Result], bool] = lambda project, result: True

    def bind(self, project: Project, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the full argument list by name; a wrong name is a defect of the flow and raises ``TypeError`` at once."""
        bound = inspect.signature(self.compute).bind(project, **arguments)
        bound.apply_defaults()
        return dict(bound.arguments)

    def parts(self, arguments: Mapping[str, Any]) -> dict[str, JSON]:
        """Return what the result depends on, by name: code, the packages it imports, the value of every argument (except `Means`), the
        digest
        of every earlier result.
        """
        parts: dict[str, JSON] = {"format": FORMAT}
        parts.update(_code(sources.closure(self.compute.__module__)))
        for name, value in arguments.items():
            if not isinstance(value, (Project, Means)):
                parts.update(_parts(name, value))
        return parts

    def run(self, key: str, arguments: Mapping[str, Any]) -> Outcome:
        """Compute the outcome under its key, which `computing` returns meanwhile."""
        token = _COMPUTING.set(key)
        try:
            return self.compute(**arguments)
        finally:
            _COMPUTING.reset(token)

    def key(self, parts: Mapping[str, JSON]) -> str:
        """Return the name of the result: the stage, so that a person sees what is cached, and a digest of the parts."""
        return f"{self.name}-{hashlib.sha256(canonical_json(parts)).hexdigest()[:40]}"


def _code(found: Mapping[str, str]) -> dict[str, JSON]:
    """Return digests by module and versions by package (`megu.core.sources.closure`), under their names in a key."""
    return {name if name.startswith(sources.PACKAGE) else f"code {name}": value for name, value in found.items()}


def _parts(name: str, value: Any) -> Iterator[tuple[str, JSON]]:
    if isinstance(value, Result):
        yield f"input {name}", value.digest
    elif isinstance(value, Ref):
        yield f"file {name}", value.sha256
    elif isinstance(value, Device):
        from megu.core.device import device_class

        yield "device class", device_class(value)
    elif isinstance(value, Code):
        yield from _code(value).items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for key, entry in dataclasses.asdict(value).items():
            yield from _parts(f"{name}.{key}" if name else key, entry)
        # Parameters that name the user's own code provide its digests.
        yield from _code(value.code() if hasattr(value, "code") else {}).items()
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _parts(f"{name}.{key}", entry)
    elif isinstance(value, (list, tuple)) and any(isinstance(entry, Result) for entry in value):
        for number, entry in enumerate(value, 1):
            yield from _parts(f"{name} {number}", entry)
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def differences(before: Mapping[str, JSON], now: Mapping[str, JSON]) -> list[str]:
    """Return what changed between the parts of two keys, in words."""
    changes = []
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if old == new and (name in before) == (name in now):
            continue
        if name.startswith("code "):
            verb = "is new" if name not in before else "is not used any more" if name not in now else "changed"
            changes.append(f"{name} {verb}")
        elif name.startswith(("input ", "file ")) or name in PRIVATE:
            changes.append(f"{name} changed")
        elif name not in before:
            changes.append(f"{name} is new ({new})")
        elif name not in now:
            changes.append(f"{name} is gone")
        else:
            changes.append(f"{name} was {old}, is {new}")
    return changes


def nearest(parts: Mapping[str, JSON], kept: Sequence[Mapping[str, JSON]]) -> list[str] | None:
    """Return the differences to the most similar of the cached results' parts; None when nothing is cached."""
    return min((differences(other, parts) for other in kept), key=len, default=None)
