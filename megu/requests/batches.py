"""What is processed together, and how a request that spoils a batch is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from megu.core.files.store import canonical_json


@dataclass(frozen=True)
class Pending:
    """A request that waits. kind, data: `megu.requests.request.Request`. due: ISO date. number: of the event that it came in with.

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
    """Requests of one kind for one data set, the one that is due first in front."""

    kind: str
    ids: tuple[str, ...]
    data: str = ""

    @property
    def id(self) -> str:
        """Named by what is in it, so that the same requests tried again are the same batch."""
        return f"b{hashlib.sha256(canonical_json(sorted(self.ids))).hexdigest()[:16]}"

    def halves(self) -> tuple[Batch, Batch]:
        middle = (len(self.ids) + 1) // 2
        return replace(self, ids=self.ids[:middle]), replace(self, ids=self.ids[middle:])


def batches(pending: Iterable[Pending], size: int) -> list[Batch]:
    """Every request in one batch of at most ``size`` of its kind and data set. What is due first comes first, within batches and among them.

    What failed before is kept from what did not, in ever smaller company (a sixteenth of ``size``, then a sixteenth of that): one
    that kills the run it is in, so that nobody can say which it was, is alone soon.
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
    """A batch that was tried. reason: why it failed, None when it did not."""

    batch: Batch
    reason: str | None


#: Failures one after the other, none that worked before, after which the fault is not a request's.
_ENOUGH = 12


class Away(Exception):
    """Raised by an attempt that an outage ended (`megu.core.outages`); says which. The batch is as it was before."""


@dataclass(frozen=True)
class Work:
    """What came of the batches. tried: in order. stopped: the fault lies elsewhere, and what is not in ``tried`` was not begun.

    outage: what was away, empty when nothing was; nothing in the batch that met it failed.
    """

    tried: Sequence[Attempt]
    stopped: bool
    outage: str = ""

    @property
    def spoilt(self) -> dict[str, str]:
        """The requests that fail alone, with the reason; none when everything does."""
        if self.stopped and not self.outage:
            return {}
        return {
            attempt.batch.ids[0]: attempt.reason for attempt in self.tried if attempt.reason and len(attempt.batch.ids) == 1
        }


def work_through(queue: Iterable[Batch], attempt: Callable[[Batch], str | None]) -> Work:
    """Try every batch; of one that fails, its halves, so that what spoils it ends up alone and the others go through.

    attempt: does a batch and returns why it failed, None when it did not. When it raises `Away`, it stops there, and the batch and those
    after it wait as they are. When a dozen fail with nothing that works between them, the fault lies elsewhere too, though nobody knows
    where, and it stops as well.
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
