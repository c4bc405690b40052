"""What the processing flow does with requests: takes them in, has each batch forgotten, evaluated and handed over. Never cached.

Only one process of a project processes at a time, ensured by an operating-system lock that ends with the process however that ends. So
the holder of the lock knows that a request still "in flight" belongs to a dead run, whatever Prefect's database says about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from megu import tracking
from megu.config.tree import Config, OriginalParams
from megu.core.errors import MeguError
from megu.core.files.locks import at_once
from megu.core.outages import is_outage
from megu.core.project import Project
from megu.data import splits
from megu.data.splits import ForgetParams
from megu.evaluation.summary import Summary
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import fingerprint
from megu.lineage.dossier import FORGOTTEN as FORGOTTEN_SET
from megu.lineage.dossier import MAIN, Dossier, Gate
from megu.lineage.index import Index
from megu.lineage.keys import Keys
from megu.lineage.promoted.champions import CHAMPION, MOVED
from megu.promotion import guard
from megu.promotion import moves as promotion
from megu.requests import datasets
from megu.requests.batches import Away, Batch, Pending, Work
from megu.requests.fulfilled import DatasetContents, Target
from megu.requests.inbox import Entry, Inbox
from megu.requests.request import TARGETS, scrubbed
from megu.requests.states import FORGOTTEN, IN_FLIGHT
from megu.suppression import answers
from megu.tracking import lineage
from tasks import dataset
from tasks.prefect import signals
from tasks.prefect.flow_runs import gone, withdraw
from tasks.records import ladder
from tasks.records.ladder import CarryOut, Climb
from tasks.records.pinning import pin

#: Maximum length of a tag's value written here; a model registry allows 5000 characters.
_TAG = 4000


def alone(project: Project) -> AbstractContextManager[bool]:
    """Yield whether this process is the one that processes, for the duration of the block; never waits."""
    return at_once(project.home / "process.lock")


def recover(inbox: Inbox) -> list[str]:
    """Put back the requests of a run that ended early; needs the lock (`alone`). Counts as a failure, since a request may be the cause,
    unless the run had finished a rung of the ladder: the next one continues from there.
    """
    moved = []
    for entry in inbox.entries(*IN_FLIGHT):
        begun = max(event.number for event in entry.events if event.kind == "request.processing")
        failed = not ladder.progressed(inbox.project, entry.fact("batch"), begun)
        moved += inbox.move([entry.id], "accepted", {"failed": failed, "why": "the run that had it ended before it was done"})
    return moved


@dataclass(frozen=True)
class Lane:
    """The requests for one data set. config: theirs; settings: its changes to the flow's. held: why they wait, empty if they do not.

    has: what they are looked up in; None while they wait.
    """

    data: str
    config: Config
    settings: tuple[str, ...] = ()
    held: str = ""
    has: DatasetContents | None = None


def lanes(project: Project, config: Config, inbox: Inbox) -> dict[str, Lane]:
    """Return data set -> how its requests are processed, for every data set with waiting requests; the configured one comes first.

    Requests for another data set than the configured one are processed separately: from that data set's champion. If that is
    impossible, they wait, and `Lane.held` gives the reason.
    """
    waiting = {entry.data for entry in inbox.entries("received", "accepted", "verified")}
    return {
        name: _lane(project, config, inbox, name) for name in sorted(waiting, key=lambda name: (name != config.data.name, name))
    }


def _lane(project: Project, config: Config, inbox: Inbox, name: str) -> Lane:
    if not name:
        held = "nobody knows which data set they are about: withdraw them, and add them again with --data NAME"
        return Lane(name, config, held=held)
    champions, model, changes = datasets.of_champions(project), config.registry.name, dict[str, Any]()
    if name != config.data.name:
        model = _model_of(inbox, name, champions) or model
        limit = _limit_of_champion(project, model, None) if champions.get(model) == name else None
        changes = {"data.name": name, "data.per_class": limit, "registry.name": model}
        config = config.model_copy(
            update={
                "data": replace(config.data, name=name, per_class=limit),
                "registry": replace(config.registry, name=model),
            }
        )
    lane = Lane(name, config, tuple(f"{key}={json.dumps(value)}" for key, value in changes.items()))
    if (of := champions.get(model, name)) != name:
        return replace(
            lane, held=f"they are about data set {name}, and the champion of {model} is of {of}: set registry.name to another"
        )
    limit = config.data.per_class
    if model in champions and (saw := _limit_of_champion(project, model, limit)) != limit:
        was, now = (json.dumps(value) for value in (saw, limit))
        why = f"the champion of {model} was made with data.per_class: {was}, and it is {now} now: set it to that, or nobody knows what it saw"
        return replace(lane, held=why)
    if changes and model not in champions and config.original != OriginalParams():
        return replace(
            lane,
            held=f"they are about data set {name}, and `original` is another's: run with --set data.name={name} and its own",
        )
    try:
        return replace(lane, has=DatasetContents(dataset.brought(project, config.data)))
    except MeguError as error:
        return replace(lane, held=scrubbed(str(error)))


def _limit_of_champion(project: Project, model: str, otherwise: int | None) -> int | None:
    """Return ``data.per_class`` of the run that the champion comes from; ``otherwise`` if its dossier cannot be read."""
    event = next(event for event in reversed(project.ledger.events(model, MOVED)))
    try:
        files = folder_of.read(project.dossiers / str(event.facts["run_id"]))
        return folder_of.parse(files[MAIN], MAIN).per_class
    except (MeguError, OSError, KeyError):
        return otherwise


def _model_of(inbox: Inbox, name: str, champions: Mapping[str, str]) -> str:
    """Return the registered model of a data set: the one with a champion for it, or with a version for one of its requests; empty
    without one."""
    if own := [model for model, data in champions.items() if data == name]:
        return own[-1]
    made = [entry.fact("version").rpartition("/")[0] for entry in inbox.entries() if entry.data == name]
    return next(filter(None, reversed(made)), "")


def review(inbox: Inbox, lanes: Mapping[str, Lane]) -> tuple[int, int]:
    """Accept or reject new requests, each by its own data set; return how many of each. Requests that are held stay "received"."""
    judged = [
        inbox.review(partial(answers.fault, inbox.project, lane.data, lane.has.fault), lane.data)
        for lane in lanes.values()
        if lane.has
    ]
    return sum(accepted for accepted, _ in judged), sum(rejected for _, rejected in judged)


def pending(inbox: Inbox, lanes: Mapping[str, Lane], attempts: int) -> list[Pending]:
    """Return what can be processed now. Requests that are held stay "accepted", with the reason recorded once; this is not a failure."""
    for entry in inbox.entries("accepted"):
        held = lanes[entry.data].held if entry.data in lanes else ""
        if held and entry.reason != held and entry.failures < attempts:
            inbox.move([entry.id], "accepted", {"why": held}, out_of=["accepted"])
    return [request for request in inbox.pending(attempts) if request.data in lanes and not lanes[request.data].held]


def fulfil(project: Project, lane: Lane, inbox: Inbox, batch: Batch, carry_out: CarryOut) -> str | None:
    """Have a batch forgotten, with everything forgotten before, and evaluate the model; return why it failed, None if it did not.

    What the gate turns down goes on to the next rung of the ladder. Raises `Away` if an outage ended it: then its requests are accepted
    as before, and none of them failed. If the gate turns a batch down for good, the batch did not fail, its requests did: they are put
    back, and wait for a person if not even the retrain passed; no smaller batch is tried at once.
    """
    config, has = lane.config, lane.has
    assert has is not None, "what is held is not processed"
    batch = inbox.claim(batch, {"flow_run": flow_run.get_id() or "", "data": lane.data})
    if not batch.ids:
        return None
    found = {request: inbox.target(request) for request in batch.ids}
    targets = [target for target in found.values() if target is not None]
    try:
        if lost := [request for request, target in found.items() if target is None]:
            raise MeguError(
                f"the private file of {', '.join(lost)} is gone, so nobody knows what to forget", "withdraw it and add it again"
            )
        forget = forget_set(project, config, inbox, has, targets)
        at = lineage.aliases(tracking.client(project.home), config.registry.name).get(CHAMPION)
        asked = from_champion(config.model_copy(update={"forget": forget}), at)
        tags = {"batch": batch.id, "requests": _tag(batch.ids), "dvc.split": pin(project, config, has, forget)}
        climb = (
            Climb("", carry_out(project, asked, tags, None))
            if config.promotion.ladder.when == "never"
            else ladder.climb(project, asked, tags, carry_out, batch=batch.id)
        )
        summary = climb.summary
        made, verdict = written_dossier(project, summary)
    except Exception as error:
        why = scrubbed(f"{error}" if isinstance(error, MeguError) else f"{type(error).__name__}: {error}", _merged(targets))
        away = is_outage(error)
        inbox.move(batch.ids, "accepted", {"why": f"waits, an outage: {why}" if away else why})
        if away:
            raise Away(why) from error
        return why
    except BaseException:  # stopped by a person or the system, or suspended: not the fault of a request
        inbox.move(batch.ids, "accepted", {"why": "the run was stopped"})
        raise
    facts = {
        "batch": batch.id,
        "data": lane.data,
        "version": (summary.model_version or "").removeprefix("models:/"),
        "mlflow_run": summary.mlflow_run_id,
        "root": made.root,
        "forgotten": made.files[FORGOTTEN_SET],
    }
    inbox.move(batch.ids, "unlearned", facts)
    broken = [rule.rule for rule in verdict.rules if rule.holds is False]
    if verdict.decision == "fail":
        why = climb.refused or f"the gate turned {facts['version'] or 'the model'} down: {', '.join(broken)}"
        inbox.move(batch.ids, "accepted", {"failed": True, "refused": bool(climb.refused), "why": why})
        signals.gate_failed(facts["version"], broken)
    else:
        inbox.move(
            batch.ids,
            "verified",
            {"version": facts["version"], "decision": verdict.decision, "champion": at or "", "data": lane.data},
        )
    ladder.end(project, climb)
    return None


def forget_set(project: Project, config: Config, inbox: Inbox, has: DatasetContents, new: Sequence[Target]) -> ForgetParams:
    """Return what the requests name and everything of their data set that was forgotten before (`megu.requests.fulfilled`): by requests,
    and by versions that were promoted without one.

    Raises `MeguError` for what cannot be forgotten together, and if it is impossible to know what a promoted version forgot.
    """
    index, promoted = Index(project.index), guard.fulfilled(project, config.registry.name)
    before, sets = [], set[str]()
    for entry in inbox.entries(*FORGOTTEN):
        if entry.data not in ("", config.data.name):
            continue
        if (target := inbox.target(entry.id)) is not None:
            before.append(target)
        else:
            sets.add(entry.fact("forgotten"))
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    if unknown := [asked.text for asked in promoted if asked.key != fingerprint(key)]:
        raise MeguError(
            f"what a promoted version forgot was recorded under another key: {unknown[0]}",
            f"put that key back into {project.keys.name}/, or such data would be trained on again",
        )
    sets_of = [index.entries(name) for name in sets if name]
    more = has.committed(key, frozenset().union(*sets_of, *(asked.commitments for asked in promoted)))
    forget = replace(has.combined(new, before, more), near_duplicates=config.forget.near_duplicates)
    splits.make_split(has.dataset, forget, 0)
    return splits.widened(has.dataset, forget, config.seed)


def from_champion(config: Config, at: str | None) -> Config:
    """Return the configuration that starts from the champion's version; from its own original as long as there is none."""
    if at is None:
        return config
    return config.model_copy(update={"original": OriginalParams(model=f"models:/{config.registry.name}/{at}")})


def written_dossier(project: Project, summary: Summary) -> tuple[Dossier, Gate]:
    """Return the dossier of a run as it was written, with the gate's verdict in it: only what can be verified counts."""
    files = folder_of.read(project.dossiers / summary.mlflow_run_id)
    made = folder_of.parse(files[MAIN], MAIN)
    assert made.evidence.gate is not None  # None only in dossiers of an older format
    return made, made.evidence.gate


def hand_over(project: Project, lane: Lane, inbox: Inbox, params: str, settings: Sequence[str]) -> dict[str, Any] | None:
    """Ask once for the approval of the data set's newest registered version that passed the gate; None if there is none. Ask again if the
    run that asked can no longer be answered (`tasks.prefect.flow_runs.gone`).

    The policy approves at once if it may. Otherwise the deployment ``promote/promote`` is started, which suspends until somebody answers;
    without one, use `megu promote`, and the requests wait in "verified".
    """
    config, name = lane.config, lane.config.registry.name
    waiting = [entry.fact("version").rpartition("/") for entry in inbox.entries("verified") if entry.data == lane.data]
    numbers = [int(number) for model, _, number in waiting if model == name]
    if not numbers:
        return None
    number = str(max(numbers))
    found = promotion.inspect_candidate(project, config, number)
    if found.obstacles:
        return {"version": f"{name}/{number}", "asked": None, "why": scrubbed("; ".join(found.obstacles))}
    if promotion.automatic(config, found):
        promotion.promote(project, config, promotion.by_policy(found), number)
        return {"version": f"{name}/{number}", "asked": "policy"}
    asked = [event for event in inbox.ledger.events(f"{name}/{number}", "approval.asked") if event.facts["seal"] == found.seal]
    if asked and not gone(asked[-1].facts["flow_run"]):
        return {"version": f"{name}/{number}", "asked": asked[-1].facts["flow_run"]}
    started = ask(number, found.seal, params, [*settings, *lane.settings], again=len(asked))
    signals.waiting(f"{name}/{number}", found.verdict.decision)
    if started is not None:
        inbox.ledger.append("approval.asked", f"{name}/{number}", {"seal": found.seal, "flow_run": started, "data": lane.data})
    return {"version": f"{name}/{number}", "asked": started}


def ask(version: str, seal: str, params: str, settings: Sequence[str], again: int = 0) -> str | None:
    """Start the approval flow's deployment; return its flow run, the same one for the same ``again``; None without a deployment.

    again: how many runs that asked for it are gone.
    """
    from prefect.deployments import run_deployment

    try:
        run: Any = run_deployment(
            "promote/promote",
            parameters={"version": version, "params": params, "settings": list(settings)},
            timeout=0,
            idempotency_key=f"promote-{version}-{seal}-{again}",
            as_subflow=False,
        )
    except ObjectNotFound:
        return None
    return str(run.id)


def take_back(inbox: Inbox) -> list[str]:
    """Cancel the suspended runs that ask for the approval of a version that no request waits for any more, since it was promoted or
    rejected from a terminal, or cannot be promoted now; return their names. Otherwise they would wait in the Prefect UI forever.
    """
    waiting = {entry.fact("version") for entry in inbox.entries("verified")}
    asked = [event for event in inbox.ledger.events(kind="approval.asked") if event.subject not in waiting]
    return withdraw({str(event.facts["flow_run"]) for event in asked})


def blame(inbox: Inbox, work: Work) -> None:
    """Count a failure for each request that fails alone."""
    for request, why in work.spoilt.items():
        inbox.move([request], "accepted", {"failed": True, "why": why})


def overdue(inbox: Inbox) -> list[Entry]:
    """Return the requests past their due date; report each to Prefect's automations."""
    late = [entry for entry in inbox.entries() if entry.overdue(datetime.now(UTC).date())]
    for entry in late:
        signals.overdue(entry.id, entry.due)
    return late


def _merged(targets: Sequence[Target]) -> dict[str, list[str]]:
    return {name: [entry for target in targets for entry in target.get(name, ())] for name in TARGETS}


def _tag(requests: Sequence[str]) -> str:
    text = " ".join(requests)
    return text if len(text) <= _TAG else f"{text[:_TAG].rpartition(' ')[0]} … ({len(requests)} in all, see the ledger)"
