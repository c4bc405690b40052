"""Promotion and rollback: the one place that moves the aliases ``champion`` and ``previous_champion``.

MLflow's aliases have no history and no compare-and-swap, so the ledger decides: a move is announced in it (*intended*), made, read back,
and recorded (*moved*). After a kill, the next process finds the intent and finishes or undoes it (`reconcile`). On one machine a file lock,
which ends with its process, admits one promoter at a time; across machines the ledger refuses the second intent.

One file because each step of a move stands beside the one that undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.exclusion import working
from megu.core.files.ledger import Event, Refused
from megu.core.project import Project
from megu.evaluation.gate import Verdict, decide
from megu.lineage.promoted.champions import CHAMPION, INTENDED, MOVED, PREVIOUS, REJECTED, UNDONE, Status, rejection, status
from megu.lineage.reading import dossier_of
from megu.lineage.verify.run import Report, verify
from megu.promotion import guard
from megu.requests import reconciling
from megu.requests.inbox import Inbox

if TYPE_CHECKING:
    from megu.config.tree import Config
    from megu.lineage.dossier import Gate
    from megu.tracking.lineage import MlflowClient

#: Reasons for the ledger, which stores no text written by a person; anything else is a text, and goes to the version's MLflow tag.
RATIONALES = ("evidence-holds", "first-model", "deadline", "risk-accepted", "fault-in-production")
RATIONALE_TAG = "promotion.rationale"
#: The checks of a dossier that must hold; others may be impossible here (a purged store), but must not differ.
ESSENTIAL = ("dossier", "dossier in MLflow", "chain", "facts", "verdict", "seal in MLflow", "model version")
#: The least number of characters that identify a digest.
_PREFIX = 12
_NAME, _TEXT = 100, 500

#: Called with the name of each step of a move when it is done.
Reached = Callable[[str], None]
STEPS = ("intended", "previous_champion moved", "champion moved", "read back", "recorded")


def _nothing(step: str) -> None:
    pass


class Stale(MeguError):
    """The approval was for evidence other than what is there now."""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """approver: a name, or "policy" for an automatic approval. rationale: one of `RATIONALES`, or a text. evidence: the seal of the dossier
    that the approver saw, or its first characters. automatic: whether the policy approved.

    Raises `MeguError` for a name or text that has several lines or is too long, and for a digest too short to identify anything.
    """

    approver: str
    rationale: str
    evidence: str
    automatic: bool = False

    def __post_init__(self) -> None:
        signed(self.approver, self.rationale)
        if len(self.evidence) < _PREFIX:
            raise MeguError(
                f"{self.evidence!r} names no evidence",
                f"give the digest that `megu promote` shows, {_PREFIX} characters of it at least",
            )


def signed(approver: str, rationale: str) -> None:
    """Refuse an approver or a rationale that could not be recorded."""
    for what, text, limit in (("approver", approver, _NAME), ("rationale", rationale, _TEXT)):
        if not text.strip() or len(text) > limit or not text.isprintable():
            raise MeguError(f"the {what} must be one line of 1 to {limit} characters", f"give it with --{what}")


@dataclass(frozen=True)
class Candidate:
    """A version that may be promoted. data: the data set. seal: of its dossier; this is the digest of the evidence. champion: the present
    one.

    verdict: the gate's with today's thresholds. status: of the ledger. judged, unsound: the reasons against promotion, one line each:
    judged (the gate, another champion, a rejection) and unsound, which forbids a rollback too (its dossier, forgotten data it knows, an
    alias moved by hand).
    """

    name: str
    version: str
    run_id: str
    request: str
    data: str
    seal: str
    champion: str | None
    verdict: Verdict
    headline: str
    status: Status
    judged: list[str]
    unsound: list[str]

    @property
    def is_champion(self) -> bool:
        return self.champion == self.version

    @property
    def obstacles(self) -> list[str]:
        return [] if self.is_champion else [*self.judged, *self.unsound]

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Moved:
    """A finished move. before: the previous champion. already: whether it had been made earlier, so that nothing was done now.

    fulfilled: ids of the requests that are promoted with it.
    """

    name: str
    version: str
    before: str | None
    already: bool = False
    fulfilled: list[str] = field(default_factory=list)


@contextmanager
def one_at_a_time(project: Project) -> Iterator[None]:
    """Wait for another promoter of this project, for as long as that one lives."""
    from megu.core.files.locks import file_lock

    with working(project), file_lock(project.home / "promotion.lock"):
        yield


def inspect_candidate(project: Project, config: Config, version: str | None = None) -> Candidate:
    """Return what can be promoted, and what speaks against it. version: its number; None for the one with the alias of ``registry.alias``.

    Raises `MeguError` if there is no such version or no dossier of it.
    """
    from megu.tracking import lineage

    name = config.registry.name
    now = lineage.aliases(lineage.reader(project.home), name)
    number = version or now.get(config.registry.alias)
    if number is None:
        raise MeguError(
            f"no version of {name} has the alias {config.registry.alias}", "`megu run` registers one, or name a version"
        )
    target = f"models:/{name}/{number}"
    dossier, report = dossier_of(target, project).dossier, verify(target, project)
    events, champion = project.ledger.events(name), now.get(CHAMPION)
    at, verdict = status(events), decide(dossier.evidence.evaluation, config.gate, champion=champion)
    rejected = rejection(events, report.seal)
    return Candidate(
        name=name,
        version=number,
        run_id=dossier.run.mlflow_run_id,
        request=str(dossier.request["words"]),
        data=dossier.data.name,
        seal=report.seal,
        champion=champion,
        verdict=verdict,
        headline=dossier.evidence.verdict,
        status=at,
        judged=_judged(number, dossier.evidence.gate, verdict, champion)
        + ([f"its evidence was rejected by {rejected.facts['approver']} on {rejected.time[:10]}"] if rejected else []),
        unsound=_faults(report, number) + _by_hand(at, champion) + guard.brings_back(project, name, number),
    )


def _faults(report: Report, version: str) -> list[str]:
    """Return what in a dossier does not hold, or cannot be checked although it must be."""
    wrong = [check for check in report.checks if check.holds is False or (check.holds is None and check.name in ESSENTIAL)]
    missing = set(ESSENTIAL) - {check.name for check in report.checks}
    lines = [f"the dossier of version {version} does not hold: {check.name}: {check.says}" for check in wrong]
    return lines + [f"the dossier of version {version} has no check {name}" for name in sorted(missing)]


def _judged(version: str, gate: Gate | None, verdict: Verdict, champion: str | None) -> list[str]:
    """Return the gate's objections, then and by today's thresholds, and whether the version was made to follow the present champion."""
    if gate is None:
        return [f"version {version} was made before there was a gate: `megu run` makes new evidence"]
    lines = []
    if gate.decision == "fail":
        lines.append(f"the gate failed it: {', '.join(rule.reason for rule in gate.rules if rule.holds is False)}")
    elif verdict.decision == "fail":
        lines.append(f"the gate fails it by the present thresholds: {', '.join(verdict.failures)}")
    if gate.champion != champion:
        was, now = (f"version {found}" if found else "none" for found in (gate.champion, champion))
        lines.append(f"it was made to follow another champion ({was} then, {now} now)")
    return lines


def _by_hand(now: Status, champion: str | None) -> list[str]:
    """Report an alias that somebody moved without the ledger."""
    if now.version is None or now.intent is not None or now.version == champion:
        return []
    where = f"version {champion}" if champion else "no version"
    return [f"{CHAMPION} is at {where}, but the ledger says version {now.version}: move it back in MLflow, or ask who moved it"]


def promote(
    project: Project, config: Config, approval: Approval, version: str | None = None, *, reached: Reached = _nothing
) -> Moved:
    """Make a version the champion. reached: called after each of `STEPS`.

    Raises `Stale` when the evidence is not what the approver saw, and `MeguError` when anything else speaks against it.
    """
    with one_at_a_time(project):
        _settle(project)
        found = inspect_candidate(project, config, version)
        if found.is_champion:
            return Moved(found.name, found.version, None, already=True, fulfilled=_follow(project, found.name))
        if not found.seal.startswith(approval.evidence.lower()):
            raise Stale(
                f"the approval is for the evidence {approval.evidence[:_PREFIX]}…, and {found} has {found.seal[:_PREFIX]}…",
                "look at it again with `megu promote`, and approve what you see",
            )
        _refuse(found)
        if approval.automatic and found.verdict.decision != "pass":
            raise MeguError(
                f"{found} may not be promoted automatically: the gate says {found.verdict.decision}", approve_with(found)
            )
        return _move(project, found.name, _facts(found, approval, "promotion"), found.status.last, approval.rationale, reached)


def automatic(config: Config, found: Candidate) -> bool:
    """Return whether the policy may approve a version by itself."""
    return (
        config.promotion.policy == "automatic"
        and found.verdict.decision == "pass"
        and not found.obstacles
        and not found.is_champion
    )


def by_policy(found: Candidate) -> Approval:
    """Return the policy's approval, which the ledger distinguishes from a person's."""
    return Approval(approver="policy", rationale="policy", evidence=found.seal, automatic=True)


def approve_with(found: Candidate) -> str:
    """Return the command that approves what is there now."""
    return (
        f"megu promote {found.version} --approve --approver NAME --rationale {RATIONALES[0]} --evidence {found.seal[:_PREFIX]}"
    )


def reject(project: Project, config: Config, approval: Approval, version: str | None = None) -> Event:
    """Record that a version will not be promoted on its present evidence. Raises as `promote` does."""
    with one_at_a_time(project):
        _settle(project)
        found = inspect_candidate(project, config, version)
        if found.is_champion:
            raise MeguError(f"{found} is the champion", "`megu rollback` puts another in its place")
        if not found.seal.startswith(approval.evidence.lower()):
            raise Stale(f"the rejection is for evidence that {found} does not have", "look at it again with `megu promote`")
        facts = {**_facts(found, approval, "rejection"), "gate": found.verdict.decision}
        earlier = rejection(project.ledger.events(found.name), found.seal)
        event = earlier or project.ledger.append(REJECTED, found.name, facts)
        _follow(project, found.name)
        return event


def rollback(
    project: Project,
    config: Config,
    approver: str,
    rationale: str,
    version: str | None = None,
    *,
    reached: Reached = _nothing,
) -> Moved:
    """Make an earlier version the champion again. version: its number; None for the one with the alias ``previous_champion``.

    Raises `MeguError` when it was trained on data that a request wants forgotten, or its dossier does not hold.
    """
    from megu.tracking import lineage

    signed(approver, rationale)
    with one_at_a_time(project):
        _settle(project)
        connected, name = lineage.reach(project.home), config.registry.name
        number = version or lineage.aliases(connected, name).get(PREVIOUS)
        if number is None:
            raise MeguError(f"no version of {name} has been champion before", "name the version: megu rollback VERSION")
        found = inspect_candidate(project, config, number)
        if found.is_champion:
            raise MeguError(f"{found} is already the champion", "name another version")
        against = found.unsound + guard.brings_back(project, name, number, guard.accepted(project, found.data))
        if against:
            raise MeguError(
                f"{found} may not become the champion again: {'; '.join(dict.fromkeys(against))}",
                "run again from the present champion",
            )
        approval = Approval(approver=approver, rationale=rationale, evidence=found.seal)
        return _move(project, name, _facts(found, approval, "rollback"), found.status.last, rationale, reached)


def reconcile(project: Project) -> list[str]:
    """Finish or undo every move that a kill left half-made, and return what was done, one line each. Quick when there is none."""
    if not any(now.intent for now in _standings(project).values()):
        return []
    with one_at_a_time(project):
        return _settle(project)


def _standings(project: Project) -> dict[str, Status]:
    events = project.ledger.events(kind="champion.")
    return {name: status([event for event in events if event.subject == name]) for name in {event.subject for event in events}}


def _settle(project: Project) -> list[str]:
    said = []
    for name, now in _standings(project).items():
        if now.intent is not None:
            said.append(_settled(project, name, now.intent.facts))
    return said


def _settled(project: Project, name: str, facts: Mapping[str, Any]) -> str:
    """Finish the move if what was approved still holds; otherwise restore the aliases."""
    from megu.tracking import lineage

    connected, version = lineage.reach(project.home), str(facts["version"])
    champion = lineage.aliases(connected, name).get(CHAMPION)
    what = f"the {facts['why']} of models:/{name}/{version} that was interrupted"
    if champion not in (facts["from"], version):
        reason = f"somebody moved {CHAMPION} meanwhile"
        _record(project, name, UNDONE, facts, reason=reason)
        return f"{what} was given up: {reason}"
    try:
        report = verify(f"models:/{name}/{version}", project)
        asked = guard.accepted(project, str(facts["data"])) if facts["why"] == "rollback" else []
        against = _faults(report, version) + guard.brings_back(project, name, version, asked)
        if report.seal != facts["seal"]:
            against.append("its evidence has changed since it was approved")
    except MeguError as error:
        against = [error.what]
    if not against:
        _finish(project, connected, name, facts, _nothing)
        _follow(project, name)
        return f"{what} was finished"
    for alias, before in ((CHAMPION, facts["from"]), (PREVIOUS, facts["previous"])):
        if lineage.aliases(connected, name).get(alias) != before:
            lineage.set_alias(connected, name, alias, before)
    _read_back(connected, name, {CHAMPION: facts["from"], PREVIOUS: facts["previous"]})
    _record(project, name, UNDONE, facts, reason="what was approved does not hold any more")
    return f"{what} was undone: {'; '.join(against)}"


def _refuse(found: Candidate) -> None:
    if found.obstacles:
        raise MeguError(f"{found} cannot be promoted: {'; '.join(found.obstacles)}", "see `megu promote` and `megu verify`")


def _facts(found: Candidate, approval: Approval, why: str) -> dict[str, Any]:
    """Return what the ledger keeps of a decision."""
    return {
        "why": why,
        "name": found.name,
        "version": found.version,
        "run_id": found.run_id,
        "data": found.data,
        "seal": found.seal,
        "gate": found.verdict.decision,
        "approver": approval.approver,
        "automatic": approval.automatic,
        "rationale": approval.rationale if approval.rationale in (*RATIONALES, "policy") else "in words",
        "from": found.champion,
    }


def _move(project: Project, name: str, facts: Mapping[str, Any], seen: int, rationale: str, reached: Reached) -> Moved:
    """Announce, move, read back, record. seen: the number of the ledger's event after which this was decided."""
    from megu.tracking import lineage

    connected = lineage.reach(project.home)
    whole = {**facts, "previous": lineage.aliases(connected, name).get(PREVIOUS)}
    if facts["rationale"] == "in words":
        lineage.tag_version(connected, name, str(facts["version"]), RATIONALE_TAG, rationale)
    try:
        project.ledger.append(INTENDED, name, whole, unless=lambda events: _beaten(events, seen))
    except Refused as refused:
        raise MeguError(f"another promoter was first: {refused.what}", "look again with `megu promote`") from None
    reached(STEPS[0])
    _finish(project, connected, name, whole, reached)
    return Moved(name, str(facts["version"]), facts["from"], fulfilled=_follow(project, name))


def _follow(project: Project, name: str) -> list[str]:
    """Update the requests to match the champion; return those that are promoted now. If killed before this, the next processing run does
    it."""
    return reconciling.reconcile(Inbox(project), name).get("promoted", [])


def _beaten(events: list[Event], seen: int) -> str | None:
    now = status(events)
    if now.last == seen:
        return None
    return (
        f"version {now.intent.facts['version']} is being promoted"
        if now.intent
        else f"version {now.version} is the champion by now"
    )


def _finish(project: Project, connected: MlflowClient, name: str, facts: Mapping[str, Any], reached: Reached) -> None:
    """Do every step after the intent; each may be done already."""
    from megu.tracking import lineage

    wanted: dict[str, str | None] = {PREVIOUS: facts["from"] or facts["previous"], CHAMPION: str(facts["version"])}
    for alias, step in ((PREVIOUS, STEPS[1]), (CHAMPION, STEPS[2])):
        if lineage.aliases(connected, name).get(alias) != wanted[alias]:
            lineage.set_alias(connected, name, alias, wanted[alias])
        reached(step)
    _read_back(connected, name, wanted)
    reached(STEPS[3])
    _record(project, name, MOVED, facts)
    reached(STEPS[4])


def _read_back(connected: MlflowClient, name: str, wanted: Mapping[str, str | None]) -> None:
    from megu.tracking import lineage

    now = lineage.aliases(connected, name)
    for alias, version in wanted.items():
        if now.get(alias) != version:
            raise MeguError(
                f"MLflow was asked to put {alias} at version {version}, but has it at {now.get(alias)}",
                "run `megu promote` again, which finishes or undoes the move",
            )


def _record(project: Project, name: str, kind: str, facts: Mapping[str, Any], **more: str) -> None:
    """Close the open intent, once."""
    try:
        project.ledger.append(kind, name, {**facts, **more}, unless=_closed)
    except Refused:
        # Another machine found the intent and finished it: the same step, so nothing is left to do.
        if kind != MOVED or status(project.ledger.events(name)).version != facts["version"]:
            raise


def _closed(events: list[Event]) -> str | None:
    return None if status(events).intent is not None else "it was closed by another promoter"
