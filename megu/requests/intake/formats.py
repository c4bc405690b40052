"""Requests as text: JSON, YAML or a table, as people and programs write them. Ambiguous text is refused, with the line.

No value is ever repeated in a message: it may be a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

from megu.core.errors import MeguError
from megu.core.files.tables import table

if TYPE_CHECKING:
    from yaml import Node

#: Columns that name one item per row; rows with one reference are one request.
ONE = {"class": "classes", "subclass": "subclasses", "id": "ids", "file": "files", "subject": "subjects"}
#: A request is a mapping with lists in it, in a list.
_DEEPEST = 8


@dataclass(frozen=True)
class Value:
    """A request's plain values. line: where it begins; 0 where unknown."""

    line: int
    values: Mapping[str, Any]


def as_json(text: str) -> Any:
    """Parse a JSON value strictly. Raises `ValueError` for text that is not JSON, is too deep, is not finite, or has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("it names a key twice")
        return found

    def refused(number: str) -> NoReturn:
        raise ValueError(f"{number} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refused)
    except RecursionError:
        raise ValueError("it is too deep") from None


def from_json(text: str, name: str) -> list[Value]:
    """Read one request, or a list of them."""
    try:
        value = as_json(text)
    except json.JSONDecodeError as error:
        raise MeguError(f"{name}, line {error.lineno} is not JSON", "correct it") from None
    except ValueError as error:
        raise MeguError(f"{name} is not JSON: {error}", "correct it") from None
    entries = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(entry, dict) for entry in entries):
        raise MeguError(f"{name} is neither a request nor a list of requests", "write {…} or [{…}, {…}]")
    return [Value(0, entry) for entry in entries]


def from_yaml(text: str, name: str) -> list[Value]:
    """Read one request, or a list of them. Every value is the text as written: `no`, `07` and `2026` are names too."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise MeguError(f"{name}, line {_line(event)}: a request has no aliases", "write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise MeguError(f"{name}, line {_line(event)}: it is too deep for a request", "correct it")
        node = yaml.compose(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise MeguError(f"{name}{f', line {mark.line + 1}' if mark else ''} is not YAML", "correct it") from None
    if node is None or not node.value:
        return []
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(entry, yaml.MappingNode) for entry in entries):
        raise MeguError(f"{name} is neither a request nor a list of requests", "write `key: value` lines")
    return [Value(_line(entry), _mapping(entry, name)) for entry in entries]


def _line(what: Any) -> int:
    """Return the line on which an event or a node of YAML begins."""
    return int(what.start_mark.line) + 1


def _mapping(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key.value, str):
            raise MeguError(f"{name}, line {line}: a key is not text", "correct it")
        if key.value in found:
            raise MeguError(f"{name}, line {line}: the request has this key twice", "keep one of them")
        found[key.value] = _plain(value, f"{name}, line {line}")
    return found


def _plain(node: Node, where: str) -> Any:
    if isinstance(node.value, str):
        # Only for a whole value: in a list of names, the text counts as written.
        empty = not getattr(node, "style", None) and node.value in ("", "~", "null", "Null", "NULL")
        return None if empty else node.value
    if all(not isinstance(entry, tuple) and isinstance(entry.value, str) for entry in node.value):
        return [entry.value for entry in node.value]
    raise MeguError(f"{where}: the value is neither text nor a list of names", "write text, or [first, second]")


# --- tables ------------------------------------------------------------------------------------------------------------------


def from_table(text: str, name: str, fields: Sequence[str]) -> list[Value]:
    """Read rows with the columns of a request (``fields`` and `ONE`). Rows with one reference are one request, a row without is its own."""
    heads, rows = table(text, name, [*fields, *ONE])
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for line, row in rows:
        cells = {head: cell.strip() for head, cell in zip(heads, row, strict=True) if cell.strip()}
        shared = {head: cell for head, cell in cells.items() if head not in ONE}
        begun, request = found.setdefault(shared.get("reference") or f"line {line}", (line, dict(shared)))
        if {head: cell for head, cell in request.items() if head not in ONE.values()} != shared:
            raise MeguError(f"{name}, line {line} differs from line {begun}, which has the same reference", "make them agree")
        for column, key in ONE.items():
            if column in cells:
                request.setdefault(key, []).append(cells[column])
    return [Value(line, request) for line, request in found.values()]


def ids(text: str, name: str) -> list[str]:
    """Return the ids in a table: its column ``id``, or its only column if that has no heading. Raises `MeguError` with the line."""
    heads, rows = table(text, name, ["id"])
    if "id" in heads:
        cells = [(line, row[heads.index("id")].strip().lower()) for line, row in rows]
    elif len(heads) == 1 and is_id(heads[0]):
        cells = [(1, heads[0]), *((line, row[0].strip().lower()) for line, row in rows)]
    elif len(heads) == 1:
        raise MeguError(f"{name}: the first line is neither a sample id nor the heading `id`", "give the column that heading")
    else:
        raise MeguError(f"{name} has no column `id`", "give the column of sample ids that heading")
    for line, cell in cells:
        if cell and not is_id(cell):
            raise MeguError(f"{name}, line {line} has no sample id", "write the 32 hex characters (data/<name>/train_ids.npy)")
    return [cell for _, cell in cells if cell]


def is_id(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{32}", text))


# --- values ------------------------------------------------------------------------------------------------------------------

_TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*(?:Z|UTC|[+-]\d{2}:?\d{2}))?)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_TIME}")
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_TIME}")


def day(text: str) -> str:
    """Return an ISO date for 2026-12-24, 2026/12/24, 24.12.2026, and 24/12/2026 or 12/24/2026, each with or without a time.

    Raises `ValueError` with the reason: with slashes or hyphens, day and month are ambiguous where both are at most 12.
    """
    text = text.strip()
    if found := _YEAR_FIRST.fullmatch(text):
        return _date(int(found[1]), int(found[3]), int(found[4]))
    if found := _YEAR_LAST.fullmatch(text):
        one, two, year = int(found[1]), int(found[3]), int(found[4])
        if found[2] == "." or one == two or one > 12:
            return _date(year, two, one)
        if two > 12:
            return _date(year, one, two)
        raise ValueError("a date whose day and month can be told apart, such as 2026-12-24")
    raise ValueError("a date such as 2026-12-24")


def _date(year: int, month: int, number: int) -> str:
    try:
        return date(year, month, number).isoformat()
    except ValueError:
        raise ValueError("a day of the calendar, such as 2026-12-24") from None
