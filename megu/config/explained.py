"""What each key of the configuration means, read from the docstring of the class that it belongs to.

There, a key's meaning is written as ``key: meaning`` or ``key, key: meaning``, at the start of a line or after a sentence, and ends with
its paragraph or at the next key. The reference page and the ``params.yaml`` of ``megu init`` are made from it.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from megu.config.tree import CHOICES, Config, parse

#: A reference to a megu module: useless to the author of a configuration.
_MODULE = re.compile(r" \(`megu\.[\w.]+`\)")


@dataclass(frozen=True)
class Key:
    """name: as ``--set`` takes it. default: as in JSON. meaning: a few words to two sentences; "" if none is documented."""

    name: str
    default: Any
    meaning: str

    @property
    def shown(self) -> str:
        """The default as a person writes it: text without quotes."""
        return self.default if isinstance(self.default, str) else json.dumps(self.default)


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return the meaning of each field of a parameter class that its docstring, or that of a base class, explains."""
    names = _fields(kind)
    one = "(?:" + "|".join(sorted(names, key=len, reverse=True)) + ")"
    said = re.compile(rf"(?:^|(?<=[.;:)])\s)({one}(?:,\s{one})*):\s", re.MULTILINE)
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(owner.__dict__.get("__doc__") or "")) if names else ():
            _, *parts = said.split(paragraph)
            for keys, text in zip(parts[::2], parts[1::2], strict=True):
                meaning = _MODULE.sub("", " ".join(text.split())).rstrip(".;")
                found |= dict.fromkeys(re.split(r",\s", keys), meaning)
    return found


def about(kind: type[Any]) -> str:
    """Return the first sentence of a parameter class's docstring, "" if it begins with a key."""
    first = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("\n\n")[0]
    return "" if re.match(r"[a-z_, ]+: ", first) else " ".join(first.split())


def section(name: str, chosen: str = "") -> list[Key]:
    """Return the keys of a section with their defaults. chosen: the method or labeler whose keys are wanted, if there is a choice.

    For a key that is not a section, return that key alone.
    """
    kind = kind_of_section(name, chosen)
    if kind is None:
        return [Key(name, parse({}).to_json()[name], meanings(Config).get(name, ""))]
    keys = _keys(f"{name}.", kind)
    if choice := CHOICES.get(name):
        annotated: Any = Config.model_fields[name].annotation
        said = meanings(annotated)[choice.key]
        keys.insert(0, Key(f"{name}.{choice.key}", chosen or choice.default, said))
    return keys


def sections() -> list[str]:
    """Return the names of the top level, in the order of the file."""
    return list(Config.model_fields)


def kind_of_section(name: str, chosen: str = "") -> type[Any] | None:
    """Return the parameter class of a section, None for a key that is not a section. chosen: as for `section`."""
    if name in CHOICES:
        return CHOICES[name].params(chosen or CHOICES[name].default)
    kind: Any = Config.model_fields[name].annotation
    return cast("type[Any]", kind) if is_dataclass(kind) else None


def _keys(prefix: str, kind: type[Any]) -> list[Key]:
    """Return the keys of a section, including nested ones: ``promotion.ladder.when``."""
    said, values = meanings(kind), kind()
    found: list[Key] = []
    for name in _fields(kind):
        value = getattr(values, name)
        if is_dataclass(value):
            found += _keys(f"{prefix}{name}.", type(value))
        else:
            found.append(Key(f"{prefix}{name}", json.loads(json.dumps(value, default=dict)), said.get(name, "")))
    return found


def _fields(kind: type[Any]) -> list[str]:
    if kind is Config:
        return list(Config.model_fields)
    return [entry.name for entry in fields(kind)] if is_dataclass(kind) else []
