"""Which requests are processed together, and how a request that spoils a batch is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from megu.core.files.store import canonical_json


@dataclass(frozen=True)
class Pending:
    """A waiting request. kind, data: see `megu.requests.request.Request`. due: ISO date. number: of the event with which it came in.

    failures: how often it failed before.
    """

    id: str
    kind: str
    due: str
    number: int
    failures: int = 0
    data: str = ""


@dataclass(frozen=True)
class Batch:
    """Requests of one kind for one data set, the one due first in front."""

    kind: str
    ids: tuple[str, ...]
    data: str = ""

    @property
    def id(self) -> str:
        """An id derived from the content, so that the same requests tried again are the same batch."""
        return f"b{hashlib.sha256(canonical_json(sorted(self.ids))).hexdigest()[:16]}"

    def halves(self) -> tuple[Batch, Batch]:
        middle = (len(self.ids) + 1) // 2
        return replace(self, ids=self.ids[:middle]), replace(self, ids=self.ids[middle:])


def batches(pending: Iterable[Pending], size: int) -> list[Batch]:
    """Put every request into a batch of at most ``size`` of its kind and data set. Earlier due dates come first, within and among batches.

    Requests that failed before are separated from those that did not, in ever smaller batches (a sixteenth of ``size``, then a sixteenth
    of that): a request that kills its run, so that nobody can say which one it was, is soon alone.
    """
    alike: dict[tuple[str, str, int], list[Pending]] = {}
    for request in sorted(pending, key=lambda request: (request.due, request.number)):
        alike.setdefault((request.data, request.kind, request.failures), []).append(request)
    parts = [part for (_, _, failures), waiting in alike.items() for part in _parts(waiting, max(size >> 4 * failures, 1))]
    parts.sort(key=lambda part: (part[0].due, part[0].number))
    return [Batch(part[0].kind, tuple(request.id for request in part), part[0].data) for part in parts]


def _parts(waiting: Sequence[Pending], size: int) -> Iterator[Sequence[Pending]]:
    return (waiting[start : start + size] for start in range(0, len(waiting), size))


@dataclass(frozen=True)
class Attempt:
    """A batch that was tried. reason: why it failed; None when it did not."""

    batch: Batch
    reason: str | None


#: Failures in a row, with no success in between, after which the fault is not a request's.
_ENOUGH = 12


class Away(Exception):
    """Raised by an attempt that an outage ended (`megu.core.outages`); the message names the outage. The batch is as it was before."""


@dataclass(frozen=True)
class Work:
    """The results of the batches. tried: in order. stopped: the fault lies elsewhere, and what is not in ``tried`` was not begun.

    outage: what was unavailable, empty when nothing was; the requests of the batch that met it did not fail.
    """

    tried: Sequence[Attempt]
    stopped: bool
    outage: str = ""

    @property
    def spoilt(self) -> dict[str, str]:
        """The requests that fail by themselves, with the reason; none when everything fails."""
        if self.stopped and not self.outage:
            return {}
        return {
            attempt.batch.ids[0]: attempt.reason for attempt in self.tried if attempt.reason and len(attempt.batch.ids) == 1
        }


def work_through(queue: Iterable[Batch], attempt: Callable[[Batch], str | None]) -> Work:
    """Try every batch, and the halves of each that fails, so that the request that spoils it ends up alone and the others go through.

    attempt: processes a batch and returns why it failed, None when it did not. When it raises `Away`, the work stops there, and this batch
    and those after it wait unchanged. When a dozen fail without a success between them, the fault lies elsewhere too, though nobody knows
    where, and the work stops as well.
    """
    waiting, tried = list(queue), list[Attempt]()
    failed = 0
    while waiting and failed < _ENOUGH:
        batch = waiting.pop(0)
        try:
            tried.append(Attempt(batch, attempt(batch)))
        except Away as outage:
            return Work(tried, stopped=True, outage=str(outage))
        failed = failed + 1 if tried[-1].reason else 0
        if tried[-1].reason and len(batch.ids) > 1:
            waiting[:0] = batch.halves()
    return Work(tried, stopped=failed >= _ENOUGH)
