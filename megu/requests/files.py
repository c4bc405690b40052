"""Requests as files: YAML or JSON (one request, or a list), or CSV (a row for each thing named); and a folder of them.

A program puts a file into ``requests/inbox/`` under a name that begins with a dot and renames it when it is whole. A file that was
taken in is deleted, since what it names may be nowhere else by then than in the private files; one with anything wrong in it is moved
to ``requests/refused/`` as a whole, with the reason beside it, and holds up no other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from megu.data.dvc import file_lock
from megu.errors import MeguError
from megu.requests.inbox import Added, Done, Inbox
from megu.requests.request import Request, RequestParams
from megu.store import writing

SUFFIXES = (".yaml", ".yml", ".json", ".csv")
#: Columns that name one thing a row; rows of one reference are one request.
_ONE = {"class": "classes", "subclass": "subclasses", "id": "ids", "file": "files"}
#: A file of ids is some megabytes; what is larger is something else.
_LARGEST = 64 << 20


def read(path: Path, params: RequestParams, today: date) -> list[Request]:
    """The requests in a file. Raises `MeguError` naming the file and what is wrong, and never the value: it may be a name."""
    try:
        if path.stat().st_size > _LARGEST:
            raise MeguError(f"{path.name} is larger than {_LARGEST >> 20} MB", "split it")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MeguError(f"{path.name} cannot be read ({type(error).__name__})", "write UTF-8") from None
    values: Sequence[Mapping[str, Any]] = (_rows if path.suffix.lower() == ".csv" else _entries)(text, path.name)
    if not values:
        raise MeguError(f"{path.name} holds no request", "write one")
    return [parse(value, f"{path.name}, request {number}", params, today) for number, value in enumerate(values, start=1)]


def parse(value: Mapping[str, Any], where: str, params: RequestParams, today: date) -> Request:
    """A request from plain values; a due date that is not given is counted from ``today``.

    Raises `MeguError` that says which key is wrong and what it must be, without the value.
    """
    known = {entry.name for entry in fields(Request)}
    unknown = sorted(set(map(str, value)) - known)
    if unknown:
        # The key may be told, as a name is hardly written there; what stands under it may not.
        raise MeguError(
            f"{where}: a request has no {unknown[0][:40]!r}, and no free text", f"it has {', '.join(sorted(known))}"
        )
    given = {name: entry for name, entry in value.items() if entry not in (None, "", [], ())}
    for name in ("classes", "subclasses", "ids", "files"):
        if name in given:
            listed = [given[name]] if isinstance(given[name], str) else given[name]
            if not isinstance(listed, (list, tuple)) or not all(isinstance(entry, str) for entry in listed):
                raise MeguError(f"{where}: {name} is no list of names", "write [first, second]")
            given[name] = tuple(listed)
    given.setdefault("due", (today + timedelta(days=params.due_days)).isoformat())
    if isinstance(given["due"], date):  # YAML knows dates
        given["due"] = given["due"].isoformat()
    missing = [name for name in ("basis", "requester") if name not in given]
    if missing:
        raise MeguError(f"{where}: it lacks {' and '.join(missing)}", "see `megu request add --help`")
    if not all(isinstance(given.get(name, ""), str) for name in ("reason", "basis", "requester", "due", "reference", "data")):
        raise MeguError(f"{where}: a value is no text", "put it in quotes")
    try:
        return Request(**given)
    except ValueError as error:
        name, _, rest = str(error).partition(" = ")
        raise MeguError(f"{where}: {name} must be {rest.rpartition('it must be ')[2]}", "correct it") from None


def _entries(text: str, name: str) -> list[Mapping[str, Any]]:
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # JSON is YAML
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise MeguError(f"{name}{f', line {mark.line + 1}' if mark else ''} is not YAML", "correct it") from None
    values = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(entry, Mapping) for entry in values):
        raise MeguError(f"{name} is no request and no list of requests", "write `key: value` lines")
    return values


def _rows(text: str, name: str) -> list[dict[str, Any]]:
    """Rows with the columns of a request; those of one reference are one request, a row without one is its own."""
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise MeguError(f"{name} is not CSV ({error})", "correct it") from None
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise MeguError(f"{name}, line {number}: it has not as many columns as the first line", "correct it")
        shared = {key: entry.strip() for key, entry in row.items() if key not in _ONE and entry.strip()}
        request = found.setdefault(shared.get("reference") or f"line {number}", dict(shared))
        if {key: entry for key, entry in request.items() if key not in _ONE.values()} != shared:
            raise MeguError(f"{name}, line {number}: it differs from the line before of its reference", "make them agree")
        for column, key in _ONE.items():
            if (row.get(column) or "").strip():
                request.setdefault(key, []).append(row[column].strip())
    return list(found.values())


def ids_in(path: Path) -> list[str]:
    """The ids in a CSV file: its column "id", or its only column, with a heading or without.

    Raises `MeguError` when there is no such column.
    """
    try:
        rows = [
            row for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))) if any(entry.strip() for entry in row)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeguError(f"{path.name} cannot be read ({type(error).__name__})", "name a CSV file of sample ids") from None
    head = [entry.strip().lower() for entry in rows[0]] if rows else []
    if "id" in head:
        return [row[head.index("id")].strip() for row in rows[1:] if len(row) > head.index("id")]
    if len(head) == 1:
        return [row[0].strip() for row in rows]
    raise MeguError(f"{path.name} has no column `id`", "give the column of sample ids that heading")


@dataclass(frozen=True)
class Taken:
    """A file of the folder. added: what came of its requests; refused: why it was set aside, empty when it was not."""

    file: str
    added: Sequence[Added] = ()
    refused: str = ""


def take(inbox: Inbox, params: RequestParams, today: date, data: str = "") -> list[Taken]:
    """Take in every file of the watched folder, one taker at a time; see the module. data: the data set of what names none."""
    folder, taken = inbox.project.inbox, list[Taken]()
    if not folder.is_dir():
        return taken
    with file_lock(inbox.project.home / "inbox.lock"):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_file() or path.suffix.lower() not in SUFFIXES:
                continue
            try:
                asked = [replace(request, data=request.data or data) for request in read(path, params, today)]
                added = inbox.add_all(asked, "file")
            except MeguError as error:
                why = f"{path.name}: {error}" if isinstance(error, Done) else str(error)
                _set_aside(path, folder.parent / "refused", why)
                taken.append(Taken(path.name, refused=why))
                continue
            path.unlink()
            taken.append(Taken(path.name, added))
    return taken


def _set_aside(path: Path, folder: Path, why: str) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with writing(folder / f"{path.name}.why") as temporary:
        temporary.write_text(f"{why}\n", encoding="utf-8")
    path.replace(folder / path.name)
