"""The superclass of each class, as a file beside the images says it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from megu.errors import MeguError

SUPERCLASSES = "superclasses.json"


def parse_superclasses(where: str, data: bytes) -> dict[str, list[str]]:
    """The content of a superclass file, {superclass: [class, ...]}."""
    try:
        return {str(coarse): [str(name) for name in names] for coarse, names in json.loads(data).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise MeguError(f"{where} is not of the form {{superclass: [class, ...]}} ({error})", "correct it") from error


def coarse_names(classes: Sequence[str], superclasses: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The superclass of each class."""
    of: dict[str, str] = {}
    for coarse, members in superclasses.items():
        for name in members:
            if of.setdefault(name, coarse) != coarse:
                raise MeguError(f"{SUPERCLASSES} has {name!r} in {of[name]!r} and in {coarse!r}", "name every class once")
    if missing := [name for name in classes if name not in of]:
        raise MeguError(f"{SUPERCLASSES} has no superclass for {', '.join(map(repr, missing[:5]))}", "name every class once")
    return tuple(of[name] for name in classes)
