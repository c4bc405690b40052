"""``megu request …`` and ``megu process``: the inbox from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu.cli.common import JsonOption, find_project, read_config, ready_project, watching, writable_project
from megu.core.escaping import plain
from megu.core.progress import duration
from megu.promotion.params import RETRAIN
from megu.requests.request import BASES, REASONS, REQUESTERS, TARGETS, RequestParams
from megu.requests.states import STATES

if TYPE_CHECKING:
    from megu.core.project import Project
    from megu.requests.inbox import Added, Entry, Inbox
    from megu.requests.request import Request
    from megu.subjects.search import Search

RequestArgument = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id, as `megu request list` shows it.")]
Names = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    request = typer.Typer(help="Requests to forget: add, list, show, withdraw, take in from files.", no_args_is_help=True)
    app.add_typer(request, name="request")

    def inbox(find: Callable[[], Project] = writable_project) -> Inbox:
        from megu.requests.inbox import Inbox

        return Inbox(find())

    def params(own: Inbox) -> RequestParams:
        from megu.core.settings.sections import section

        return section(own.project.params, "requests", RequestParams)

    _adding(request, inbox, params)
    _looking(request, lambda: inbox(find_project))
    _changing(request, inbox)
    _processing(app)


def _adding(request: typer.Typer, inbox: Callable[[], Inbox], params: Callable[[Inbox], RequestParams]) -> None:
    @request.command()
    def add(  # noqa: PLR0913, PLR0917 - an option each
        classes: Annotated[Names, typer.Option("--class", metavar="NAME", help="A whole class. Repeatable.")] = None,
        subclasses: Annotated[Names, typer.Option("--subclass", metavar="NAME", help="A finer class. Repeatable.")] = None,
        ids: Annotated[Names, typer.Option("--id", metavar="ID", help="A sample id (32 hex characters). Repeatable.")] = None,
        names: Annotated[Names, typer.Option("--file", metavar="NAME", help="A training image's name. Repeatable.")] = None,
        table: Annotated[
            Path | None, typer.Option("--csv", metavar="FILE", help="A CSV file with a column of sample ids, or of subjects.")
        ] = None,
        subjects: Annotated[
            Names,
            typer.Option(
                "--subject",
                metavar="ID",
                help="A person's id in the table of subjects, in every data set; - reads it from standard input. Repeatable.",
            ),
        ] = None,
        basis: Annotated[str, typer.Option(help=f"The legal basis: {', '.join(BASES)}.")] = "",
        requester: Annotated[str, typer.Option(help=f"Who asks: {', '.join(REQUESTERS)}.")] = "",
        reason: Annotated[str, typer.Option(help=f"Why: {', '.join(REASONS)}.")] = "erasure-request",
        due: Annotated[
            str, typer.Option(metavar="DATE", help="The due date, such as 2026-12-24 (default: requests.due_days from now).")
        ] = "",
        reference: Annotated[str, typer.Option(metavar="TICKET", help="A ticket's number such as DSR-2026-0142.")] = "",
        data: Annotated[
            str, typer.Option(metavar="NAME", help="The data set of the request (default: the current data.name).")
        ] = "",
        as_json: JsonOption = False,
    ) -> None:
        """Add a request; adding an open one again changes nothing. No free text: it could name a person, and the ledger never deletes
        anything."""
        from megu.requests.intake import files

        own = inbox()
        given: dict[str, Any] = {
            "classes": classes or [],
            "subclasses": subclasses or [],
            "ids": ids or [],
            "files": names or [],
            **{"basis": basis, "requester": requester, "reason": reason, "due": due, "reference": reference, "data": data},
        }
        where, today, search = "megu request add", datetime.now(UTC).date(), files.People(own.project)
        given["subjects"] = [sys.stdin.readline() if subject == "-" else subject for subject in subjects or []]
        for name, entries in (files.listed_in(table) if table else {}).items():
            given[name] = [*given[name], *entries]
        asked = files.read_requests(given, where, params(own), today, search)
        added = own.add_all(asked, "command")
        if given["subjects"]:
            return _print_people(own, asked, added, search.search(data), as_json=as_json)
        if as_json:
            return print(json.dumps({**_added(added[0]), "due": own.entry(added[0].id).due}))
        return print(_received(added[0], asked[0].due))

    @request.command()
    def take(as_json: JsonOption = False) -> None:
        """Take in the request files in requests/inbox; exit code 1 when one was refused."""
        from megu.requests.intake import files

        own = inbox()
        taken = files.take(own, params(own), datetime.now(UTC).date())
        if as_json:
            rows = [
                {"file": file.file, "refused": file.refused or None, "added": [_added(a) for a in file.added]} for file in taken
            ]
            print(json.dumps({"files": rows}, indent=2))
        else:
            for file in taken:
                new = sum(added.new for added in file.added)
                print(plain(file.refused or f"{file.file}: {new} new, {len(file.added) - new} there already"))
            if not taken:
                print("nothing in requests/inbox", file=sys.stderr)
        if any(file.refused for file in taken):
            raise typer.Exit(1)

    @request.command()
    def serve(
        host: Annotated[
            str, typer.Option(help="The address to listen on; any other than loopback needs a proxy with TLS.")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535)] = 4300,
    ) -> None:
        """Accept requests over HTTP (POST /requests) from clients with the token in MEGU_REQUEST_TOKEN."""
        from megu.requests.intake import http

        own = inbox()
        http.serve(own, params(own), host, port)


def _looking(request: typer.Typer, inbox: Callable[[], Inbox]) -> None:
    @request.command("list")
    def list_(
        state: Annotated[str, typer.Option(help=f"Only those in this state: {', '.join(STATES)}.")] = "",
        overdue: Annotated[bool, typer.Option("--overdue", help="Only those past their due date.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """List requests, those due first at the top."""
        if state and state not in STATES:
            raise typer.BadParameter(f"there is no state {state}")
        today = datetime.now(UTC).date()
        found = [entry for entry in inbox().entries() if state in ("", entry.state) and (not overdue or entry.overdue(today))]
        found.sort(key=lambda entry: (entry.due, entry.id))
        if as_json:
            return print(json.dumps({"requests": [entry.to_json() for entry in found]}, indent=2))
        for entry in found:
            print(_line(entry))
        return None if found else print("no requests", file=sys.stderr)

    @request.command()
    def show(request: RequestArgument, as_json: JsonOption = False) -> None:
        """Show a request, everything that happened to it and, as long as that is stored, what it names."""
        entry = inbox().entry(request)
        if as_json:
            value = {**entry.to_json(), "target": entry.target, "events": [event.to_json() for event in entry.events]}
            return print(json.dumps(value, indent=2))
        print(_line(entry))
        facts = entry.facts
        print(
            f"  {facts['reason']} under {facts['basis']}, from {facts['requester']}, reference {facts['reference'] or 'none'}"
            f", data set {entry.data or 'unknown'}"
        )
        print(f"  names: {_named(entry)}")
        for event in entry.events:
            rest = ", ".join(
                f"{name} {value}" for name, value in event.facts.items() if name in ("why", "version", "batch", "samples")
            )
            print(f"  {event.time[:19]} {event.kind.removeprefix('request.')}{f' ({rest})' if rest else ''}")
        return None


def _changing(request: typer.Typer, inbox: Callable[[], Inbox]) -> None:
    @request.command()
    def withdraw(request: RequestArgument, as_json: JsonOption = False) -> None:
        """Withdraw a request, as long as no run has begun with it."""
        inbox().withdraw(request)
        print(json.dumps({"id": request, "state": "withdrawn"}) if as_json else f"{request}: withdrawn")

    @request.command()
    def retry(request: RequestArgument, as_json: JsonOption = False) -> None:
        """Let a request that failed too often be tried again."""
        inbox().retry(request)
        print(json.dumps({"id": request, "state": "accepted"}) if as_json else f"{request}: will be tried again")

    @request.command()
    def close(request: RequestArgument, as_json: JsonOption = False) -> None:
        """Close a request whose model was promoted: the requester has been told. With promotion.served the model must be served, too."""
        from megu.core.errors import MeguError
        from megu.core.settings.sections import section
        from megu.promotion.params import PromotionParams, RegistryParams
        from megu.serving import follow

        own = inbox()
        entry, here = own.entry(request), own.project
        follow.refuse_unseen(
            here,
            section(here.params, "registry", RegistryParams).name,
            section(here.params, "promotion", PromotionParams),
            entry,
        )
        now = entry.state
        if now != "closed" and not own.move([request], "closed", {}):
            raise MeguError(f"{request} is {now}, not promoted", "it can be closed once a model that forgot it is the champion")
        print(json.dumps({"id": request, "state": "closed"}) if as_json else f"{request}: closed")


def _processing(app: typer.Typer) -> None:
    @app.command()
    def process(
        settings: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value for this run. Repeatable.")
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the rungs of the ladder with their possible cost, and do nothing.")
        ] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Process the pending requests now, as the schedule does: forget, evaluate, try the next rung where the gate says no,
        register, ask for approval. Exit code 1 while a request waits for which even the exact retrain fails the gate."""
        here = find_project() if dry_run else ready_project()
        asked = read_config(here, None, settings)
        asked.for_requests()
        if dry_run:
            from flows.process import plan

            return _print_plan(*plan(here, asked), asked.promotion.ladder.hours, as_json)
        from tasks.records import ladder

        ladder.refuse_small_budget(here, asked)
        from megu.servers import databases as creation

        creation.ensure_own_prefect(here.home / "prefect")
        from flows.process import process as flow
        from megu.tracking import warm_up
        from tasks.run.running import from_terminal

        with from_terminal(warm_up), watching(not as_json):
            done = flow(settings=settings or [])
        if as_json:
            print(json.dumps(done, indent=2))
        else:
            _print_done(done)
        if done.get("refused"):
            raise typer.Exit(1)
        return None


def _print_done(done: Mapping[str, Any]) -> None:
    from megu.requests.overview import describe_rung

    if done["busy"]:
        return print("another run is processing; the requests wait for the next one")
    print(f"{done['accepted']} accepted, {done['rejected']} rejected, {len(done['recovered'])} recovered")
    for batch in done["batches"]:
        rungs = [rung for rung in done["rungs"] if rung["batch"] == batch["batch"]]
        done_or_not = "turned down by the gate" if rungs and rungs[-1]["outcome"] == "fail" else "done"
        print(f"batch {batch['batch']} of {batch['requests']}: {batch['failed'] or done_or_not}")
        for rung in rungs:
            print(f"  {describe_rung(rung)}")
    if done["outage"]:
        print(f"stopped by an outage; what was not done waits unchanged: {done['outage']}")
    elif done["stopped"]:
        print("stopped: a dozen batches failed in a row, so no request is blamed")
    for data, why in done["held"].items():
        print(f"the requests for {data or 'no known data set'} wait: {why}")
    for approval in done["approvals"] or [None]:
        print(_said(approval))
    if done["served"]:
        print(f"the server: {done['served']['says']}")
    if done["closed"]:
        print(f"closed with it: {', '.join(done['closed'])}")
    for line in done["troubles"]:
        print(f"megu: {plain(line)}", file=sys.stderr)
    for request, why in done["refused"].items():
        print(
            f"REFUSED {request}: {why}; look at the thresholds of `gate`, then `megu request retry {request}`", file=sys.stderr
        )
    return None


def _print_plan(waiting: int, rows: Sequence[Mapping[str, Any]], hours: float, as_json: bool) -> None:
    """waiting: how many requests wait. rows: the rungs of the ladder, none if it is off. hours: its budget."""
    total = sum(row["seconds"] or 0.0 for row in rows if not row["skipped"])
    if as_json:
        return print(json.dumps({"waiting": waiting, "hours": hours, "seconds": total, "rungs": list(rows)}, indent=2))
    print(f"{waiting} {'request waits' if waiting == 1 else 'requests wait'}; for each batch:")
    for row in rows:
        drawn = ", ".join(f"{name} {value:.3g}" for name, value in row["drawn"].items())
        takes = f"skipped: {row['skipped']}" if row["skipped"] else _about(row["seconds"])
        if row["method"] == RETRAIN and row["seconds"] == 0:
            takes = "only its evaluation, since it is the reference of the first"
        print(f"{row['rung']:>3}. {row['method']}{f' with {drawn}' if drawn else ''}: {takes}")
    if not rows:
        return print("one run, as promotion.ladder.when is never")
    unknown = any(row["seconds"] is None for row in rows)
    return print(
        f"A rung runs only if the gate turned down all before it; {'those measured' if unknown else 'all of them'} "
        f"take {_about(total)} of {hours:g} h (promotion.ladder.hours)."
    )


def _about(seconds: float | None) -> str:
    return "not measured yet" if seconds is None else f"about {duration(seconds)}"


def _said(approval: Mapping[str, Any] | None) -> str:
    """Return what became of the newest model that passed the gate."""
    if approval is None:
        return "nothing waits for approval"
    if approval["asked"] == "policy":
        return f"{approval['version']} is the champion, approved by the policy"
    if "why" in approval:
        return f"{approval['version']} cannot be promoted: {approval['why']}"
    where = f"Prefect's flow run {approval['asked']}, or " if approval["asked"] else ""
    return f"{approval['version']} waits for approval: {where}`megu promote {approval['version'].rpartition('/')[2]}`"


def _print_people(own: Inbox, asked: list[Request], added: list[Added], search: Search, *, as_json: bool) -> None:
    """Print what was found of each person, and where: a request for each data set."""
    from megu.data import arrays

    tested = {name: set(arrays.load(own.project.data(name)).test.ids.tolist()) for name in {request.data for request in asked}}
    rows = list[dict[str, Any]]()
    for request, one in zip(asked, added, strict=True):
        test = sum(sample.encode() in tested[request.data] for sample in request.samples)
        counts = {"samples": len(request.samples), "train": len(request.samples) - test, "test": test}
        rows.append({**_added(one), "due": own.entry(one.id).due, "person": request.person, "data": request.data, **counts})
    if as_json:
        print(json.dumps({"requests": rows, "without_subjects": search.without}, indent=2))
        return
    for row, request, one in zip(rows, asked, added, strict=True):
        where = f"{row['samples']:,} samples in {row['data']} ({row['train']:,} training and {row['test']:,} test images)"
        print(f"{row['person']}: {where}; {_received(one, request.due)}")
    if search.without:
        print(f"without subjects, so only equal images were searched for: {', '.join(search.without)}", file=sys.stderr)


def _received(added: Added, due: str) -> str:
    return f"{added.id}: " + (f"received, due {due}" if added.new else f"there already, {added.state}; nothing has changed")


def _added(added: Added) -> dict[str, Any]:
    return {"id": added.id, "new": added.new, "state": added.state}


def _line(entry: Entry) -> str:
    facts = entry.facts
    counts = ", ".join(f"{facts[name]} {name}" for name in TARGETS if name in facts)
    counts += f" of {facts['person']}" if "person" in facts else ""
    return f"{entry.id}  {entry.state:<10}  due {entry.due}  {counts}{f'  ({entry.reason})' if entry.reason else ''}"


def _named(entry: Entry) -> str:
    if entry.target is None:
        return "deleted"
    names = [name for entries in entry.target.values() for name in entries]
    return plain(", ".join(names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
