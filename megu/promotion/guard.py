"""Keep forgotten data from coming back: find the requests on whose data a model version was trained.

A version knows a sample of a request if it was trained on it and did not forget it. The check uses the commitments, so no id is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.lineage.commitments import commit, fingerprint
from megu.lineage.index import Index, Row
from megu.lineage.keys import Keys
from megu.lineage.promoted import champions
from megu.requests.fulfilled import DatasetContents
from megu.requests.inbox import Inbox
from megu.requests.states import FORGOTTEN


@dataclass(frozen=True)
class ProtectedRequest:
    """A request to forget that was accepted or fulfilled. text: its description. commitments: to its samples. key: fingerprint of their
    key."""

    text: str
    commitments: frozenset[bytes]
    key: str


def brings_back(project: Project, name: str, version: str, more: Iterable[ProtectedRequest] = ()) -> list[str]:
    """Return why a version may not become the champion, one line for each request whose data it was trained on; empty if it may.

    more: requests besides those that the promoted versions forgot.
    """
    asked = [*fulfilled(project, name), *more]
    if not asked:
        return []
    index = Index(project.index)
    row = row_of(index, name, version)
    if row is None:
        return [f"it is not known here what version {version} was trained on (no dossier of it is indexed)"]
    known = index.entries(row.trained) - index.entries(row.forgotten)
    found = []
    for request in asked:
        if request.key != row.key:
            found.append(f"version {version} and the request {request.text} were recorded under different keys")
        elif count := len(request.commitments & known):
            found.append(f"version {version} was trained on {count:,} of the images of the request {request.text}")
    return found


def fulfilled(project: Project, name: str) -> list[ProtectedRequest]:
    """Return what the versions that were ever promoted forgot.

    Raises `MeguError` when one of them is missing from the index, because then nothing can be said about any version.
    """
    index, found = Index(project.index), dict[str, ProtectedRequest]()
    for facts in champions.promotions(project.ledger.events(name, "champion.")):
        row = index.row(str(facts["run_id"]))
        if row is None:
            raise MeguError(
                f"the run {facts['run_id']} of a promoted version is not in the index", "`megu lineage index` rebuilds it"
            )
        words = f"{row.request} (forgotten by version {facts['version']})"
        found.setdefault(row.forgotten, ProtectedRequest(words, index.entries(row.forgotten), row.key))
    return list(found.values())


def accepted(project: Project, data: str) -> list[ProtectedRequest]:
    """Return what the requests about a data set ask for that are accepted but not yet, or not finally, forgotten. data: its name.

    Raises `MeguError` when there are some and the data set or the key of the commitments is not here.
    """
    inbox, index = Inbox(project), Index(project.index)
    entries_of = [entry for entry in inbox.entries("accepted", "processing", *FORGOTTEN) if entry.data in ("", data)]
    if not entries_of:
        return []
    key, folder = Keys(project.keys).commitment_key(), project.data(data)
    if key is None or not (folder / "meta.json").is_file():
        raise MeguError(
            f"there are accepted requests, but data/{data} or the key of the commitments is not here", "bring it back"
        )
    known, found = DatasetContents(arrays.load(folder)), list[ProtectedRequest]()
    for entry in entries_of:
        target, done = inbox.target(entry.id), [event.facts.get("forgotten") for event in entry.events]
        samples = {commit(key, name.encode()) for name in known.samples(target)} if target else set()
        if entry.state in FORGOTTEN and (names := [str(name) for name in done if name]):
            samples |= index.entries(names[-1])
        found.append(ProtectedRequest(entry.id, frozenset(samples), fingerprint(key)))
    return found


def row_of(index: Index, name: str, version: str) -> Row | None:
    """Return the newest recorded run of a version."""
    return next((row for row in reversed(index.rows()) if row.model == f"models:/{name}/{version}"), None)
