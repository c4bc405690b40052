"""The answer to a request for samples that were already erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage import dossier as folder_of
from megu.lineage.dossier import MAIN, Dossier
from megu.suppression.record import Header
from megu.suppression.store import Suppressions

Target = Mapping[str, Sequence[str]]


def fault(project: Project, data: str, own: Callable[[Target], tuple[str, int]], target: Target) -> tuple[str, int]:
    """As ``own`` (`megu.requests.fulfilled.DatasetContents.fault`); the reason also says what was erased, by which request and when."""
    why, count = own(target)
    erased = answer(project, data, target) if why else ""
    return f"{why}: {erased}" if erased else why, count


def answer(project: Project, data: str, target: Target) -> str:
    """Return which of a request's items were erased, by which request and when; empty when none were. The answer names no sample.

    data: the data set's name. Ids are looked up in the list, classes in the dossiers of the runs that forgot them. The names of erased files
    are stored nowhere, so nothing is said about them. Raises `MeguError` when the list or its key is not whole.
    """
    listed = Suppressions(project).opened()
    ids = [value.encode() for value in (*target["ids"], *target.get("samples", ()))]
    found = Counter(int(number) for number in listed.find_ids(ids) if number >= 0)
    lines = [f"{count:,} of them erased {listed.headers[number]}" for number, count in found.items()]
    own = [header for header in listed.headers if header.data == data]
    for kind in ("classes", "subclasses"):
        by = {name: _first(project, own, kind, name) for name in target[kind]}
        lines += [f"{n:,} of them erased {said}" for said, n in Counter(str(first) for first in by.values() if first).items()]
    return "; ".join(lines)


def _first(project: Project, headers: Sequence[Header], kind: str, name: str) -> Header | None:
    """Return the record of the oldest run that forgot a class. Later runs forget it again, but their records hold what else they forgot."""
    pairs = [
        (run.run.created, len(header.runs), header.id, header)
        for header in headers
        for run in _dossiers(project, header)
        if name in run.request.get(kind, ())
    ]
    return min(pairs)[-1] if pairs else None


def _dossiers(project: Project, header: Header) -> Iterator[Dossier]:
    """Yield the dossiers of a record's runs that are here."""
    for run in header.runs:
        try:
            yield folder_of.parse(folder_of.read(project.dossiers / run)[MAIN], MAIN)
        except (MeguError, OSError, KeyError):
            continue
