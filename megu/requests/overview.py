"""``megu status``: requests by state and age, the last runs, the champion and its predecessors, the next schedule, what needs a person.

It needs neither torch nor MLflow: the ledger, the index of dossiers and, where a server runs, a query to Prefect are enough, so it
answers at once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from megu.core import escaping
from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.progress import duration
from megu.core.project import Project
from megu.lineage import dossier
from megu.lineage.index import Index, Row
from megu.lineage.promoted.champions import rejection, status
from megu.requests.inbox import Entry, Inbox
from megu.requests.request import RequestParams
from megu.requests.states import OPEN, STATES
from megu.servers import addresses, services

#: Runs that are shown.
_LAST = 5
#: Timeout of each query to Prefect, in seconds.
_PATIENCE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Overview:
    """services: address of each server, the project's own or the team's that the environment names; None for one that does not run.

    requests: how many by state. waiting: the open ones that are due first.

    runs: the last recorded ones. champion: version, since when, by whom; None without one. lineage: the versions before it, newest first.
    served: what the server of ``promotion.served`` was found to serve (`megu.serving.check`); None where there is none.
    ladder: the rungs of the last ladder (`megu.promotion.ladder`) according to the ledger, and its outcome; None before the first.
    schedules: the next runs that Prefect has planned; None when no server could be queried, for the reason ``unanswered``.
    person: what needs a person, one line each.
    """

    services: dict[str, str | None]
    requests: dict[str, int]
    overdue: int
    waiting: list[dict[str, Any]]
    runs: list[dict[str, str]]
    champion: dict[str, Any] | None
    lineage: list[str]
    served: dict[str, Any] | None
    ladder: dict[str, Any] | None
    schedules: list[dict[str, str]] | None
    unanswered: str
    person: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def overview(
    project: Project,
    name: str,
    requests: RequestParams,
    today: date | None = None,
    *,
    served: Mapping[str, Any] | None = None,
    awaited: bool = False,
) -> Overview:
    """Return the present overview. name: of the registered model. served: what its server was found to serve, if it was queried. awaited:
    whether requests close only when that is the champion (``promotion.served``)."""
    today = today or datetime.now(UTC).date()
    entries = Inbox(project).entries()
    live = services.endpoints(project.home)
    events = project.ledger.events(name)
    now = status(events)
    moved = [event for event in events if event.kind == "champion.moved"]
    rows = Index(project.index).rows()
    late = [entry for entry in entries if entry.overdue(today)]
    schedules, unanswered = _planned(os.environ.get(addresses.PREFECT) or live.prefect_api)
    champion = None
    if now.version is not None and moved:
        facts = moved[-1].facts
        request = next((row.request for row in reversed(rows) if row.model == f"models:/{name}/{now.version}"), "")
        champion = {
            "version": f"{name}/{now.version}",
            "since": moved[-1].time,
            "approver": facts["approver"],
            "forgot": request,
            "seal": facts["seal"],
        }
    open_ones = sorted((entry for entry in entries if entry.state in OPEN), key=lambda entry: (entry.due, entry.id))
    counts = Counter(entry.state for entry in entries)
    return Overview(
        services={
            "prefect": live.prefect_ui or addresses.shown(os.environ.get(addresses.PREFECT, "")) or None,
            "mlflow": live.mlflow or addresses.shown(os.environ.get(addresses.MLFLOW, "")) or None,
        },
        requests={state: counts[state] for state in STATES if counts[state]},
        overdue=len(late),
        waiting=[_waits(entry, today) for entry in open_ones[:_LAST]],
        runs=[
            {"run": row.run_id, "created": row.created, "request": row.request, "model": row.model, "method": row.method}
            for row in rows[: -_LAST - 1 : -1]
        ],
        champion=champion,
        lineage=[f"{name}/{event.facts['version']} ({event.facts['why']}, {event.time[:10]})" for event in reversed(moved)],
        served=dict(served) if served else None,
        ladder=_ladder(project.ledger.events(kind="ladder.")),
        schedules=schedules,
        unanswered=unanswered,
        person=_to_promote(project, name, entries, rows, events)
        + _needs_a_person(project, requests.attempts, entries, late, name if awaited else ""),
    )


def _waits(entry: Entry, today: date) -> dict[str, Any]:
    received = datetime.fromisoformat(entry.events[0].time).date()
    return {
        "id": entry.id,
        "state": entry.state,
        "due": entry.due,
        "days_left": (date.fromisoformat(entry.due) - today).days,
        "age_days": (today - received).days,
        "why": entry.reason or None,
    }


def _ladder(events: Sequence[Event]) -> dict[str, Any] | None:
    if not events:
        return None
    own = [event for event in events if event.subject == events[-1].subject]
    closed = [at for at, event in enumerate(own) if event.kind == "ladder.ended"]
    ended = own[-1].facts["outcome"] if own[-1].kind == "ladder.ended" else "under way"
    begun = next((at + 1 for at in reversed(closed) if at + 1 < len(own)), 0)
    rungs = {event.facts["number"]: dict(event.facts) for event in own[begun:] if event.kind != "ladder.ended"}
    return {"ladder": events[-1].subject, "outcome": ended, "rungs": [rungs[number] for number in sorted(rungs)]}


def _to_promote(
    project: Project, name: str, entries: Sequence[Entry], rows: Sequence[Row], events: Sequence[Event]
) -> list[str]:
    """Return a line for the newest version that may be promoted: one that fulfils requests, else one of a run that the gate let pass."""
    verified = [entry for entry in entries if entry.state == "verified"]
    models = {entry.fact("version").rpartition("/")[0] for entry in verified} - {""}
    lines = []
    for model in sorted(models):
        number = max(_number(entry.fact("version")) for entry in verified if entry.fact("version").startswith(f"{model}/"))
        lines.append(f"{model}/{number} waits for approval: the form in the Prefect UI, or `megu promote {number}`")
    if without := [entry.id for entry in verified if not entry.fact("version")]:
        lines.append(
            f"no version was registered of the model that forgot {', '.join(without)}: "
            "`megu process` with registry.enabled: true takes it up again"
        )
    if lines:
        return lines
    now = status(events)
    newest = max(
        (row for row in rows if row.model.startswith(f"models:/{name}/")), key=lambda row: _number(row.model), default=None
    )
    if newest is None or _number(newest.model) <= int(now.version or 0) or rejection(events, newest.seal):
        return []
    try:
        gate = dossier.parse((project.dossiers / newest.run_id / dossier.MAIN).read_bytes(), dossier.MAIN).evidence.gate
    except (OSError, MeguError):
        return []  # `megu verify` says what is wrong with it
    if gate is None or gate.decision == "fail" or gate.champion != now.version:
        return []
    number = _number(newest.model)
    return [
        f"{name}/{number} ({_no_code(newest.request)}) is not promoted and the gate says {gate.decision}: see `megu promote {number}`"
    ]


def _number(model: str) -> int:
    return int(model.rpartition("/")[2])


def _needs_a_person(
    project: Project, attempts: int, entries: Sequence[Entry], late: Sequence[Entry], awaited: str
) -> list[str]:
    """Return what needs a person. awaited: the model whose requests close once its server is found to serve the champion; empty for none."""
    lines = []
    lines += [
        f"request {entry.id} was refused: {_no_code(entry.reason)}; look at the thresholds of `gate`, then `megu request retry {entry.id}`"
        for entry in entries
        if entry.refused
    ]
    held = [entry for entry in entries if entry.state == "accepted" and entry.failures >= attempts and not entry.refused]
    lines += [
        f"request {entry.id} failed {entry.failures} times ({_no_code(entry.reason)}): `megu request retry {entry.id}`"
        for entry in held
    ]
    promoted = [entry for entry in entries if entry.state == "promoted"]
    if unseen := [entry for entry in promoted if awaited and entry.fact("version").rpartition("/")[0] == awaited]:
        lines.append(f"{len(unseen)} fulfilled, and close when the server serves the champion: reload it, then `megu status`")
    done = [entry for entry in promoted if entry not in unseen]
    # A request whose samples no model was trained on has no version whose certificate could be shown.
    for fulfilled in filter(
        None, ([one for one in done if one.fact("version")], [one for one in done if not one.fact("version")])
    ):
        first, version = fulfilled[0].id, fulfilled[0].fact("version")
        proof = f"megu certificate --request {first}" if version else f"megu request show {first}"
        lines.append(f"{len(fulfilled)} fulfilled: tell whoever asked (`{proof}`), then `megu request close {first}`")
    if late:
        lines.append(f"{len(late)} overdue, the first since {min(entry.due for entry in late)}: `megu request list --overdue`")
    refused = project.root / "requests" / "refused"
    if refused.is_dir() and (found := sorted(path.name for path in refused.glob("*.why"))):
        lines.append(f"{len(found)} request files were refused: see requests/refused/")
    return lines


def _planned(api: str | None) -> tuple[list[dict[str, str]] | None, str]:
    """Return the next planned run of each deployment, by two queries to Prefect; None and the reason when it does not answer at once."""
    if not api:
        return None, "no Prefect server runs (`megu up`)"
    asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    try:
        found = addresses.ask_prefect(api, "flow_runs/filter", asked, _PATIENCE_S)
        deployments = addresses.ask_prefect(api, "deployments/filter", {"limit": 200}, _PATIENCE_S)
        names = {entry["id"]: entry["name"] for entry in deployments}
        first: dict[str, str] = {}
        for run in found:
            if run.get("auto_scheduled") and run.get("deployment_id") in names:
                first.setdefault(names[run["deployment_id"]], str(run["expected_start_time"]))
    except MeguError as error:
        return None, str(error)
    except (TypeError, KeyError, AttributeError):
        return None, f"what answers at {addresses.shown(api)} is not Prefect's API"
    return [{"deployment": name, "next": when} for name, when in first.items()], ""


def markdown(now: Overview, written: Callable[[str], str] = escaping.markdown) -> str:
    """Return the overview as Markdown that reads well on a terminal. written: how names are escaped; `megu.core.escaping.plain` there."""
    requests = ", ".join(f"{count} {state}" for state, count in now.requests.items()) or "none"
    lines = ["## Requests", "", f"{requests}{f'; **{now.overdue} overdue**' if now.overdue else ''}", ""]
    if now.waiting:
        lines += ["| request | state | due | days left | age | why |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {row['id']} | {row['state']} | {row['due']} | {row['days_left']} | {row['age_days']} d | {written(row['why'] or '')} |"
            for row in now.waiting
        ]
        lines.append("")
    lines += ["## Champion", ""]
    if now.champion:
        lines.append(
            f"**{written(now.champion['version'])}** since {now.champion['since'][:16]}, "
            f"approved by {written(now.champion['approver'])}"
        )
        lines.append(f"before: {written(', '.join(now.lineage[1:]) or 'none')}")
    else:
        lines.append("none yet")
    if now.served:
        lines.append(f"the server: {written(now.served['says'])}")
    lines += ["", "## Last runs", ""]
    lines += [
        f"- {row['created'][:16]} forget {written(row['request'])}: {written(row['model'] or 'not registered')}"
        for row in now.runs
    ] or ["none"]
    if now.ladder:
        lines += ["", f"## Ladder: {now.ladder['outcome']}", ""]
        lines += [f"- {written(describe_rung(facts))}" for facts in now.ladder["rungs"]]
    lines += ["", "## Next", ""]
    if now.schedules is None:
        lines.append(_outside_code(now.unanswered, written))
    else:
        lines += [f"- {written(row['deployment'])}: {row['next']}" for row in now.schedules] or ["no schedule is active"]
    lines += ["", "## Needs a person", ""]
    lines += [f"- {_outside_code(line, written)}" for line in now.person] or ["nothing"]
    return "\n".join(lines)


def describe_rung(facts: Mapping[str, Any]) -> str:
    """Describe a rung of a ladder in words. facts: of its event in the ledger."""
    why = facts.get("why") or ", ".join(facts.get("broken", []))
    version = str(facts.get("version", "")).removeprefix("models:/")
    took = f" in {duration(facts['seconds'])}" if "seconds" in facts else ""
    said = (
        f"{facts['number']} of {facts['of']}: {facts['method']}{f' ({version})' if version else ''}, {facts['outcome']}{took}"
    )
    return f"{said}{f': {why}' if why else ''}"


def _no_code(text: str) -> str:
    """Return a name or a reason without backticks, for a line that has its own code spans."""
    return text.replace("`", "'")


def _outside_code(line: str, written: Callable[[str], str]) -> str:
    """Return a line with commands in code spans, the text around them escaped as names are."""
    parts = re.split(r"(?<!`)(`[^`]+`)(?!`)", line)
    return "".join(part if number % 2 else _kept_spaces(part, written) for number, part in enumerate(parts))


def _kept_spaces(text: str, written: Callable[[str], str]) -> str:
    return f"{' ' if text[:1] == ' ' else ''}{written(text)}{' ' if text[1:] and text[-1] == ' ' else ''}"
