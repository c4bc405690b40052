"""The superclass of each class, from a file beside the images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from megu.core.errors import MeguError
from megu.data.naming import nfc, shown, unusable_class

SUPERCLASSES = "superclasses.json"


def parse_superclasses(where: str, data: bytes) -> dict[str, list[str]]:
    """Return the content of a superclass file, {superclass: [class, ...]}."""
    form = "{superclass: [class, ...]}"
    try:
        content = json.loads(data)
        if not (isinstance(content, dict) and all(isinstance(names, list) for names in content.values())):
            raise ValueError("its content has another structure")
    except (ValueError, RecursionError) as error:
        raise MeguError(f"{shown(where)} is not of the form {form} ({error})", "correct it") from error
    for coarse in content:
        if reason := unusable_class(coarse):
            raise MeguError(f"{shown(where)}: the superclass {coarse!r} {reason}", "rename it")
    return {nfc(coarse): [nfc(str(name)) for name in names] for coarse, names in content.items()}


def coarse_names(classes: Sequence[str], superclasses: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the superclass of each class."""
    of: dict[str, str] = {}
    for coarse, members in superclasses.items():
        for name in members:
            if of.setdefault(name, coarse) != coarse:
                raise MeguError(f"{SUPERCLASSES} has {name!r} in {of[name]!r} and in {coarse!r}", "name every class once")
    if missing := [name for name in classes if name not in of]:
        raise MeguError(f"{SUPERCLASSES} has no superclass for {', '.join(map(repr, missing[:5]))}", "name every class once")
    return tuple(of[name] for name in classes)
