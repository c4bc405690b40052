"""Requests as files: YAML or JSON (one request, or a list), or CSV (one row for each item named); and a folder of them.

A program writes a file into ``requests/inbox/`` under a name that begins with a dot, and renames it when it is complete. A file that was
taken in is deleted, since from then on only the private files may hold what it names. A file with anything wrong in it is moved as a
whole to ``requests/refused/``, with the reason beside it, and holds up no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.escaping import plain
from megu.core.files import tables
from megu.core.files.locks import file_lock
from megu.core.files.store import writing
from megu.requests.inbox import Added, Done, Inbox
from megu.requests.intake import formats
from megu.requests.request import Request, RequestParams

if TYPE_CHECKING:
    from megu.core.project import Project
    from megu.subjects.search import Search

SUFFIXES = (".yaml", ".yml", ".json", ".csv")
#: A file of ids has a few megabytes; anything larger is something else.
_LARGEST = 64 << 20


def read(path: Path, params: RequestParams, today: date, project: Project | None = None) -> list[Request]:
    """Read the requests in a file. project: where people are looked up; without one, a file that names any is refused.

    Raises `MeguError` naming the file and what is wrong, but never the value: it may be a name.
    """
    kind = path.suffix.lower()
    text = tables.text_of(path, _LARGEST)
    if kind == ".csv":
        values = formats.from_table(text, path.name, [entry.name for entry in fields(Request) if entry.name not in _FOUND])
    else:
        values = (formats.from_json if kind == ".json" else formats.from_yaml)(text, path.name)
    if not values:
        raise MeguError(f"{path.name} holds no request", "write one")
    found, people = list[Request](), People(project)
    for number, value in enumerate(values, start=1):
        where = f"{path.name}, {f'line {value.line}' if value.line else f'request {number}'}"
        found += read_requests(value.values, where, params, today, people)
    return found


class People:
    """Looks up people in a project's data sets (`megu.subjects.search`), which are read at the first look-up."""

    def __init__(self, project: Project | None) -> None:
        self._project = project
        self._opened: dict[str, Search] = {}

    def search(self, data: str = "") -> Search:
        """Return the search in one data set, or in all that have subjects. Raises `MeguError` where there are none."""
        from megu.subjects.search import Search

        if self._project is None:
            raise MeguError("a request about a person can be read only in a project", "add it there")
        return self._opened.get(data) or self._opened.setdefault(data, Search(self._project, data))


def read_requests(value: Mapping[str, Any], where: str, params: RequestParams, today: date, people: People) -> list[Request]:
    """Return the requests that plain values stand for: one, or for each of the ``subjects`` one per data set that has samples of theirs.

    Raises `MeguError` as `parse` does, and for a subject without samples.
    """
    rest = {name: entry for name, entry in value.items() if name != "subjects"}
    if not (named := value.get("subjects")):
        return [parse(rest, where, params, today)]
    from megu.subjects.table import spelt

    if extra := [name for name in _LISTS if rest.get(name)]:
        raise MeguError(f"{where}: subjects and {extra[0]} are two requests", "ask for each by itself")
    subjects = [named] if isinstance(named, str | int) else named
    if not isinstance(subjects, list | tuple) or not all(isinstance(_as_text(subject), str) for subject in subjects):
        raise MeguError(f"{where}: subjects is not a list of names", "write [first, second]")
    known = dict.fromkeys(spelt(_as_text(subject), where) for subject in subjects)
    parse({**rest, "ids": "0" * 32}, where, params, today)  # reports other faults before anybody is looked up
    search = people.search(_as_text(rest.get("data") or ""))
    return [
        parse({**rest, "data": found.data}, where, params, today, samples=(*found.train, *found.test), person=found.person)
        for subject in known
        for found in search.find(subject, where)
    ]


#: What a request names in lists.
_LISTS = ("classes", "subclasses", "ids", "files")
#: What is looked up about a person, and never written in a request.
_FOUND = {"samples", "person"}


def parse(
    value: Mapping[str, Any], where: str, params: RequestParams, today: date, samples: tuple[str, ...] = (), person: str = ""
) -> Request:
    """Build a request from plain values; a missing due date is counted from ``today``. samples, person: as in `Request`.

    Raises `MeguError` that says which key is wrong and what it must be, without the value.
    """
    known = {entry.name for entry in fields(Request)} - _FOUND
    unknown = sorted(set(map(str, value)) - known)
    if unknown:
        # The key may be shown, since a name is hardly written there; its value may not.
        raise MeguError(
            f"{where}: a request has no {unknown[0][:40]!r}, and no free text",
            f"it has {', '.join(sorted({*known, 'subjects'}))}",
        )
    given = {name: _as_text(entry) for name, entry in value.items() if entry not in (None, "", [], ())}
    for name in _LISTS:
        if name in given:
            listed = [given[name]] if isinstance(given[name], str) else given[name]
            if not isinstance(listed, (list, tuple)) or not all(isinstance(_as_text(entry), str) for entry in listed):
                raise MeguError(f"{where}: {name} is not a list of names", "write [first, second]")
            given[name] = tuple(map(_as_text, listed))
    given |= {"ids": tuple(entry.strip().lower() for entry in given["ids"])} if "ids" in given else {}
    given |= {"files": tuple(entry.replace("\\", "/") for entry in given["files"])} if "files" in given else {}
    given.setdefault("due", (today + timedelta(days=params.due_days)).isoformat())
    missing = [name for name in ("basis", "requester") if name not in given]
    if missing:
        raise MeguError(f"{where}: it lacks {' and '.join(missing)}", "see `megu request add --help`")
    if not all(isinstance(given.get(name, ""), str) for name in ("reason", "basis", "requester", "due", "reference", "data")):
        raise MeguError(f"{where}: a value is not text", "put it in quotes")
    try:
        given["due"] = formats.day(given["due"])
    except ValueError as error:
        raise MeguError(f"{where}: due must be {error}", "correct it") from None
    try:
        return Request(**given, samples=samples, person=person)
    except ValueError as error:
        name, _, rest = str(error).partition(" = ")
        raise MeguError(f"{where}: {name} must be {rest.rpartition('it must be ')[2]}", "correct it") from None


def _as_text(value: Any) -> Any:
    """Return a whole number as text: it is a name too, of a ticket or of a class of digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def ids_in(path: Path) -> list[str]:
    """Return the ids in a CSV file: its column "id", or its only column, with or without that heading.

    Raises `MeguError` when there is no such column, and for a cell that is not an id.
    """
    return formats.ids(tables.text_of(path, _LARGEST), path.name)


def listed_in(path: Path) -> dict[str, list[str]]:
    """Return what a CSV file lists: ``subjects`` where it has a column "subject", else ``ids`` (`ids_in`)."""
    from megu.subjects import table

    columns, _ = tables.table(tables.text_of(path, _LARGEST), path.name, ["id", table.SUBJECT])
    return {"subjects": table.subjects(path)} if table.SUBJECT in columns else {"ids": ids_in(path)}


@dataclass(frozen=True)
class Taken:
    """A file of the folder. added: the outcome of its requests. refused: why it was set aside; empty when it was not."""

    file: str
    added: Sequence[Added] = ()
    refused: str = ""


def take(inbox: Inbox, params: RequestParams, today: date, data: str = "") -> list[Taken]:
    """Take in every file of the watched folder, in one process at a time; see the module. data: the data set of requests that name none."""
    folder, taken = inbox.project.inbox, list[Taken]()
    if not folder.is_dir():
        return taken
    with file_lock(inbox.project.home / "inbox.lock"):
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_file() or path.suffix.lower() not in SUFFIXES:
                continue
            try:
                requests = read(path, params, today, inbox.project)
                added = inbox.add_all([replace(request, data=request.data or data) for request in requests], "file")
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
        temporary.write_text(f"{plain(why)}\n", encoding="utf-8")
    path.replace(folder / path.name)
