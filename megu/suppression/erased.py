"""What a purge adds to the suppression list before anything is erased."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from megu.core.errors import MeguError
from megu.core.files.ledger import Ledger
from megu.core.project import Project
from megu.data.arrays import Ids, Images, image_ids
from megu.data.images import near
from megu.lineage.commitments import commit
from megu.lineage.index import Index
from megu.suppression.listed import is_grey
from megu.suppression.record import made
from megu.suppression.store import Suppressions


def suppress(
    project: Project,
    key: bytes,
    erased: str,
    runs: Sequence[tuple[str, str]],
    samples: Sequence[tuple[str, Images, Ids]],
    days: int | None,
) -> None:
    """Add the samples that are not on the list yet: one record for each data set and run.

    erased: when (UTC, ISO 8601). runs: MLflow run id, and the set of what the run forgot (`megu.lineage.index`), oldest first; a sample counts
    for the first run that forgot it. samples: for each data set its name, the images and their ids. days: how long they stay on the list, None
    for ever. Safe to repeat.
    """
    if days == 0:
        return
    kept = Suppressions(project)
    today = date.fromisoformat(erased[:10])
    kept.expire(today)
    listed = kept.opened()
    until = None if days is None else (today + timedelta(days=days)).isoformat()
    forgotten = [(run, _forgotten(project, name)) for run, name in runs]
    for data, images, ids in samples:
        known = listed.find_ids(ids.tolist()) >= 0
        owner = np.array([_owner(commit(key, bytes(value)), forgotten) for value in ids], dtype=np.int64)
        for number in sorted(set(owner[~known].tolist())):
            rows = np.flatnonzero((owner == number) & ~known)
            of = [runs[number][0]] if number >= 0 else [run for run, _ in runs]
            found = near.strengths(images[rows])
            grey = images[rows][..., :1][is_grey(images[rows])]
            every = {*ids[rows].tolist(), *image_ids(grey).tolist()}
            record = made(
                key,
                (commit(key, bytes(value)) for value in every),
                found.hashes[found.usable],
                erased=erased,
                requests=_requests(project.ledger, of),
                runs=of,
                data=data,
                shape=list(images.shape[1:]),
                samples=len(rows),
                until=until,
            )
            kept.add([record])


def _owner(commitment: bytes, forgotten: Sequence[tuple[str, frozenset[bytes]]]) -> int:
    """Return the number of the first run that forgot a sample; -1 for one erased along with them (a test image of a class)."""
    return next((number for number, (_, known) in enumerate(forgotten) if commitment in known), -1)


def _forgotten(project: Project, name: str) -> frozenset[bytes]:
    try:
        return Index(project.index).entries(name)
    except MeguError:  # until `megu lineage index` rebuilds the index, they count for all runs
        return frozenset()


def _requests(ledger: Ledger, runs: Sequence[str]) -> list[str]:
    """Return the ids of the requests that the runs fulfilled."""
    events = ledger.events(kind="request.")
    return sorted({event.subject for event in events if event.facts.get("mlflow_run") in runs})
