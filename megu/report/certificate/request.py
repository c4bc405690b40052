"""The outcome of one request, for the person who made it and for a regulator: facts from the ledger, the dossier, the purge and the list.

Nothing is stored twice: each fact is read where it was written, and the sentences come from a language
(`megu.report.certificate.language`). A batch has many requests, and a version forgets all of them together, so nothing here comes from a
place that names or counts other requests: not the dossier's request, nor the reasons of its rules, nor what a purge says of a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.erasure.params import PurgeParams
from megu.erasure.policy import until
from megu.evaluation.gate import RuleResult
from megu.lineage.dossier import Dossier, sha256
from megu.lineage.promoted.champions import MOVED, status
from megu.lineage.purged import document
from megu.lineage.purged.document import RESIDUAL, Purge
from megu.lineage.purged.locations import VERSIONS
from megu.lineage.reading import Found, dossier_of
from megu.lineage.verify.run import Report, own_key, verify
from megu.promotion.params import PromotionParams, RegistryParams
from megu.report.certificate.text import of_each
from megu.requests.inbox import Entry, Inbox
from megu.requests.request import RequestParams
from megu.requests.states import DONE, PREFIX
from megu.serving.follow import seen_event
from megu.suppression.record import Header
from megu.suppression.store import Suppressions

#: Sentence of a limit -> how the limit begins in a dossier (`megu.lineage.dossier.claim`).
LIMITS: Mapping[str, str] = {
    "exact": "exact: ",
    "empirical": "empirical: ",
    "attack": "what is measured is accuracy and one entropy attack",
    "dp": "no certificate in the sense of differential privacy",
    "copies": "this says nothing of copies",
    "pretrained": "every network begins with weights made elsewhere",
    "given_retrain": "the retrain was given",
    "alone": "no model that never saw the forgotten images",
    "given": "the original model was given",
}


@dataclass(frozen=True, kw_only=True)
class Erased:
    """The purge that covers the request. seal: of its document, empty where that cannot be trusted. places: location and verdict.

    versions: the day until which earlier versions stay, None for no end; empty where none stays.
    """

    seal: str
    time: str = ""
    places: Sequence[tuple[str, str]] = ()
    test_images: bool = False
    versions: Sequence[str | None] = ()

    @property
    def whole(self) -> bool:
        """Whether its document is trusted and nothing that had to go is left."""
        return bool(self.seal) and all(verdict != RESIDUAL for _, verdict in self.places)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One request. entry: its ledger entry, with what it names while that is kept. own: the version that first forgot it, and when.

    move: the promotion that fulfilled it. champion: the version that is the champion now. found, report: the dossier of the promoted
    version, and the result of verifying it. seen: when the server was seen to have today's champion; configured: whether a server is
    configured. erased: None until the data are erased. suppressed: its records in the suppression list. versions_until: the day from which
    a purge takes the versions that knew the data, while nothing is erased yet. backups: the day until which the controller keeps backups;
    None where that is not stated.
    """

    entry: Entry
    controller: str
    own: tuple[str, str]
    move: Event
    champion: str
    found: Found
    report: Report
    configured: bool
    seen: Event | None
    erased: Erased | None
    suppressed: Sequence[Header]
    versions_until: str | None
    backups: date | None
    now: datetime

    @property
    def dossier(self) -> Dossier:
        return self.found.dossier

    @property
    def state(self) -> str:
        """ "good", "open" (something is still to be done) or "bad" (what is recorded does not hold)."""
        decision = self.dossier.evidence.gate.decision if self.dossier.evidence.gate else ""
        if self.report.exit_code == 1 or decision == "fail":
            return "bad"
        served = self.seen is not None or not self.configured
        return "good" if served and self.erased is not None and self.erased.whole else "open"

    @property
    def events(self) -> list[tuple[str, datetime]]:
        """The states of the request, in order; consecutive repeats of a state appear once."""
        states = [(event.kind.removeprefix(PREFIX), datetime.fromisoformat(event.time)) for event in self.entry.events]
        return [found for number, found in enumerate(states) if number == 0 or states[number - 1][0] != found[0]]

    def time_of(self, state: str) -> datetime | None:
        """Return when it last entered a state."""
        return next((time for name, time in reversed(self.events) if name == state), None)

    @property
    def rules(self) -> list[RuleResult]:
        return list(self.dossier.evidence.gate.rules) if self.dossier.evidence.gate else []

    def measured(self, metric: str) -> list[float | None]:
        """Return a metric of the model before, the one now, and, where there is one, the model that never saw the data."""
        return of_each(self.dossier, metric)

    @property
    def limits(self) -> Iterator[tuple[str, str]]:
        """The sentence name and text of each limit of the claim; the name is empty where no sentence matches."""
        for text in self.dossier.claim.limits:
            yield next((name for name, start in LIMITS.items() if text.startswith(start)), ""), text


def facts(
    project: Project,
    request: str,
    params: RequestParams,
    registry: RegistryParams,
    promotion: PromotionParams,
    purge: PurgeParams,
    now: datetime,
) -> Facts:
    """Collect everything about one request. params, registry, promotion, purge: the project's settings. now: the present time.

    Raises `MeguError` if there is no such request, it is not fulfilled, or its evidence is gone.
    """
    entry = Inbox(project).entry(request)
    if entry.state not in DONE:
        why = f" ({entry.reason})" if entry.reason else ""
        raise MeguError(
            f"{request} is {entry.state}, not fulfilled{why}", "there is a page when a model that forgot it is in production"
        )
    name, events = _model(entry), project.ledger.events(_model(entry))
    move = _move_of(entry, events)
    found = dossier_of(str(move.facts["run_id"]), project)
    erased = _erased(project, entry, found)
    last = next(event for event in reversed(events) if event.kind == MOVED)
    _, day = until(purge.models_days, found.dossier.run.created, now.isoformat())
    listed = [record.header for record in Suppressions(project).records()]
    return Facts(
        entry=entry,
        controller=params.controller or project.root.name,
        own=(_last(entry, "unlearned", "version"), _time(entry, "unlearned")),
        move=move,
        champion=f"{name}/{status(events).version}",
        found=found,
        report=verify(str(move.facts["run_id"]), project, sealed=bool(found.purges)),
        configured=bool(promotion.served) and name == registry.name,
        seen=seen_event(project, name, last.number),
        erased=erased,
        suppressed=[header for header in listed if request in header.requests],
        versions_until=day,
        backups=_backups(erased, params),
        now=now,
    )


def _model(entry: Entry) -> str:
    return entry.fact("version").rpartition("/")[0]


def _last(entry: Entry, state: str, fact: str) -> str:
    events = [event for event in entry.events if event.kind == f"{PREFIX}{state}"]
    return str(events[-1].facts.get(fact, "")) if events else ""


def _time(entry: Entry, state: str) -> str:
    return next((event.time for event in reversed(entry.events) if event.kind == f"{PREFIX}{state}"), "")


def _move_of(entry: Entry, events: Sequence[Event]) -> Event:
    """Return the promotion that fulfilled a request."""
    number = next((event.facts.get("event") for event in reversed(entry.events) if event.kind == f"{PREFIX}promoted"), None)
    version = _last(entry, "promoted", "version").rpartition("/")[2]
    moves = [event for event in events if event.kind == MOVED and (number in (None, event.number))]
    found = next((event for event in reversed(moves) if str(event.facts["version"]) == version), None)
    if found is None:
        raise MeguError(f"the ledger has no promotion of {entry.fact('version')}", "restore .megu/ledger.db from a backup")
    return found


def _erased(project: Project, entry: Entry, found: Found) -> Erased | None:
    """Return the newest purge of the run that first forgot the request, or of the one that was promoted."""
    trusted = [*own_key(project), *([found.seal.public] if found.seal.public else [])]
    content = list(found.purges)
    own = _last(entry, "unlearned", "mlflow_run")
    if own and own != found.dossier.run.mlflow_run_id:
        content += dossier_of(own, project).purges
    believed = list[tuple[Purge, str]]()
    for each in content:
        try:
            believed.append((document.parse(each, document.NAME, trusted).purge, sha256(each)))
        except MeguError:
            continue
    if not believed:
        return Erased(seal="") if content else None
    purge, seal = max(believed, key=lambda found: found[0].created)
    kept = [each.until for each in purge.retained if each.surface == VERSIONS]
    return Erased(
        seal=seal,
        time=purge.created,
        places=[(surface.name, surface.verdict) for surface in purge.surfaces],
        test_images=bool(purge.policy.get("test_images")) and entry.facts["kind"] != "ids",
        versions=kept,
    )


def _backups(erased: Erased | None, params: RequestParams) -> date | None:
    """Return the day until which backups contain what was erased."""
    if erased is None or not erased.time or params.backups_days is None:
        return None
    return datetime.fromisoformat(erased.time).astimezone(UTC).date() + timedelta(days=params.backups_days)
