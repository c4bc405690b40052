"""What earlier purges of the same runs said: once the images are gone, there is nothing left to search with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from megu.core.files.store import sha256_file
from megu.core.project import Project
from megu.erasure.decisions import Plan, entry
from megu.erasure.search.scan import Found
from megu.erasure.search.stores import Stores, was_retained
from megu.lineage.purged import erasures
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import CAME_BACK, Entry, Sealed
from megu.lineage.verify.context import Opened
from megu.lineage.verify.run import own_key

#: Joins the reason why something was left and the purge that found it.
_SAID = ", as the purge"


def documents(project: Project, runs: Sequence[Opened]) -> list[Sealed]:
    """Return the purges that cover any of the runs, oldest first."""
    covered = {run.dossier.run.mlflow_run_id for run in runs}
    known = erasures.load(project, {}, own_key(project), "", True).documents
    return [document for document in known if covered & {run.mlflow_run_id for run in document.purge.covers}]


def objects(before: Sequence[Sealed]) -> set[str]:
    """Return the MD5s of the stored files that purges found to hold samples."""
    stores = (places.CACHE, places.REMOTES)
    return {
        "".join(Path(each.what).parts[-2:])
        for document in before
        for each in [*document.purge.erased, *document.purge.residual]
        if each.surface in stores and each.sha256 in document.purge.holding() and "md5" in Path(each.what).parts
    }


def decide(
    project: Project,
    plan: Plan,
    known: Stores,
    before: Sequence[Sealed],
    hits: Mapping[Path, tuple[str, Found]],
    digests: Mapping[Path, tuple[str, str]],
    waiting: Set[Path],
) -> None:
    """Decide on what the purges ``before`` erased and is back, and on what they had to leave. waiting: private files of open requests."""
    _back(project, plan, known, before, hits, digests)
    surfaces = {project.relative(path): surface for path, (surface, _) in digests.items()}
    decided, kept = plan.decided, {entry.what for document in before for entry in document.purge.retained}
    for what, (was, document) in _left(before).items():
        path = project.root / what
        if what in decided or not path.is_file():
            continue
        surface, digest = surfaces.get(what, was.surface), sha256_file(path)
        said = f"{_SAID} {document.seal[:12]}… found"
        if digest != was.sha256:
            why = f"{was.why.partition(_SAID)[0]}{said}, which has changed since, and nobody can look again"
            plan.residual.append(entry(surface, what, why, digest))
        elif path.resolve() in waiting:
            plan.retained.append(entry(surface, what, was.why, digest))
        elif what in kept or was_retained(was.why):
            plan.take(project, known, surface, path, digest, was.why.partition(": ")[0].partition(_SAID)[0] + said)
        else:
            plan.residual.append(entry(surface, what, was.why.partition(_SAID)[0] + said, digest))


def _back(
    project: Project,
    plan: Plan,
    known: Stores,
    before: Sequence[Sealed],
    hits: Mapping[Path, tuple[str, Found]],
    digests: Mapping[Path, tuple[str, str]],
) -> None:
    """Decide on what was erased and is there again: files that hold samples anywhere, all others in their old place."""
    erased = [(entry, document) for document in before for entry in document.purge.erased if entry.sha256 is not None]
    anywhere = {digest: document for document in before for digest in document.purge.holding()}
    there = {(entry.what, entry.sha256): document for entry, document in erased}
    decided = plan.decided
    for path, (surface, digest) in digests.items():
        what = project.relative(path)
        if what in decided or path in hits or surface == places.DATA:
            continue
        document = anywhere.get(digest) or there.get((what, digest))
        if document is not None:
            why = f"was erased by the purge {document.seal[:12]}… and is back"
            plan.take(project, known, surface, path, digest, why, personal=digest not in document.purge.harmless())


def _left(before: Sequence[Sealed]) -> dict[str, tuple[Entry, Sealed]]:
    """Return the files that purges left or kept, by path; the newest purge counts. Copies that say nothing about anybody are left out: an
    older megu took equal arrays of labels for copies."""
    found = {}
    for document in before:
        harmless = document.purge.harmless()
        for each in [*document.purge.residual, *document.purge.retained]:
            if each.sha256 is not None and not (each.why == CAME_BACK and each.sha256 in harmless):
                found[each.what] = each, document
    return found
