"""Single sections of ``params.yaml``, read without what the whole configuration needs (torch, for the methods' parameters), so that
`megu status` and `megu request` answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from megu.core.errors import MeguError
from megu.core.settings import merging, scalars
from megu.core.settings.scalars import Written

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """Return the content of the file; words that YAML does not read as text are `megu.core.settings.scalars.Written`. An empty file is
    an empty configuration: all defaults.
    """
    try:
        value = scalars.parse(merging.read_text(path))
    except FileNotFoundError:
        raise MeguError(f"there is no configuration file {path}", "specify an existing file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MeguError(f"{path} cannot be read ({error})", "specify a readable YAML file") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise MeguError(f"{path}{line} is not YAML: {getattr(error, 'problem', error)}", "correct the file") from None
    if value is None or (isinstance(value, Written) and value.value is None):
        return {}
    if not isinstance(value, dict):
        raise MeguError(f"{path} holds no sections", "write `section:` and below it `key: value`, as `megu params` prints them")
    # An empty section is None already here; other words wait for their field (`megu.core.settings.scalars.resolve`).
    return {str(name): None if isinstance(entry, Written) and entry.value is None else entry for name, entry in value.items()}


def section(path: Path, name: str, kind: type[T]) -> T:
    """Return one section of a configuration file as its parameter class; defaults where the file says nothing.

    Raises `MeguError` for a key that the class does not have or a value out of range.
    """
    given = scalars.resolve(read(path).get(name) or {}, kind)
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(given, Mapping) or (unknown := sorted(set(given) - set(known))):
        wrong = f"unknown key {name}.{unknown[0]}" if isinstance(given, Mapping) else f"{name} is not a section"
        raise MeguError(f"{path.name}: {wrong}", f"known keys: {', '.join(known)}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise MeguError(f"{path.name}: {name}.{error}", "change it there") from None
