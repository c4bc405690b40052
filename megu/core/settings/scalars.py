"""YAML in which text is taken literally: a class named ``no``, ``07``, ``null`` or ``2024-01-01`` needs no quotes.

YAML reads such words as a boolean, a number, null and a date before anything knows what they are for. Here they keep both
readings until `resolve` chooses by the type of the field.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

import yaml


class Written(str):
    """An unquoted word that YAML does not read as text. value: what YAML reads it as."""

    value: Any

    @classmethod
    def of(cls, text: str, value: Any) -> Written:
        written = cls(text)
        written.value = value
        return written


class _Loader(yaml.SafeLoader):
    """Makes such words `Written`."""


def _written(loader: _Loader, node: yaml.ScalarNode) -> Written:
    try:
        value = yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    except (KeyError, ValueError, yaml.YAMLError):  # "=", or an impossible date such as 2024-02-31
        value = node.value
    return Written.of(node.value, value)


for _kind in ("null", "bool", "int", "float", "timestamp", "value", "merge"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _written)


def parse(text: str) -> Any:
    """The value of a YAML document, with `Written` words in it. Raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_Loader)


def resolve(value: Any, kind: Any) -> Any:
    """Return ``value`` with every `Written` word read as ``kind`` (a type as in an annotation) requires: as text if only text is allowed,
    else as YAML does. Everything else is left for validation.
    """
    if isinstance(value, Written):
        if value.value is None and (not _wants_text(kind) or _takes_none(kind)):
            return None
        plain = value.value is None or isinstance(value.value, (bool, int, float))  # no field is a date
        return value.value if plain and not _wants_text(kind) and not _wants_text(_item(kind)) else str(value)
    if isinstance(value, Mapping):
        fields = _fields(kind)
        return {str(name): resolve(entry, fields.get(str(name), _item(kind))) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(entry, _item(kind)) for entry in value]
    return value


def unquoted(value: Any, kind: Any) -> list[str]:
    """Return the words in ``value`` that `resolve` reads as text but another YAML reader (DVC) would not."""
    if isinstance(value, Written):
        return [] if isinstance(resolve(value, kind), type(value.value)) else [str(value)]
    if isinstance(value, Mapping):
        fields = _fields(kind)
        return [word for name, entry in value.items() for word in unquoted(entry, fields.get(str(name), _item(kind)))]
    return [word for entry in value for word in unquoted(entry, _item(kind))] if isinstance(value, (list, tuple)) else []


def alike(one: Any, other: Any) -> bool:
    """Whether two values that `parse` returned are the same, either literally or as YAML reads them."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other) or bool(resolve(one, Any) == resolve(other, Any))


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _wants_text(kind: Any) -> bool:
    """Whether every value of a type except None is text."""
    members = [member for member in _members(kind) if member is not type(None) and get_origin(member) is not dict]
    texts = [
        member is str or (get_origin(member) is Literal and all(isinstance(entry, str) for entry in get_args(member)))
        for member in members
    ]
    return bool(texts) and all(texts)


def _takes_none(kind: Any) -> bool:
    return type(None) in _members(kind)


def _item(kind: Any) -> Any:
    """Return the type of the items of a list or mapping."""
    for member in _members(kind):
        if get_origin(member) in (tuple, list, dict):
            return next(entry for entry in reversed(get_args(member)) if entry is not ...)
    return Any


def _fields(kind: Any) -> Mapping[str, Any]:
    """Return the fields of a dataclass, by name, with their types."""
    return next((typing.get_type_hints(member) for member in _members(kind) if is_dataclass(member)), {})
