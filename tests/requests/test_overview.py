"""How things stand: from a ledger, an index and, where one answers, a Prefect server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from megu.core.project import Project
from megu.lineage.promoted.champions import MOVED
from megu.requests.inbox import NEVER_SEEN, Inbox
from megu.requests.overview import markdown, overview
from megu.requests.request import Request, RequestParams

TODAY = date(2026, 11, 24)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def add(project: Project, name: str, due: str) -> str:
    return Inbox(project).add(Request(classes=(name,), basis="contract", requester="internal", due=due)).id


def test_an_empty_project_needs_nothing_and_nobody(project: Project) -> None:
    now = overview(project, "megu", RequestParams(), TODAY)
    assert (now.requests, now.champion, now.runs, now.schedules, now.person) == ({}, None, [], None, [])
    assert "Needs a person\n\nnothing" in markdown(now)
    assert not project.ledger.path.exists()


def test_who_asked_for_what_no_model_saw_is_told_without_a_version(project: Project) -> None:
    inbox = Inbox(project)
    said = {"basis": "contract", "requester": "internal", "due": "2026-12-24"}
    asked = inbox.add(Request(samples=("f" * 32,), person="p0123456789abcdef", **said)).id  # type: ignore[arg-type]
    inbox.review(lambda target: ("", 0))
    assert inbox.entry(asked).reason == NEVER_SEEN
    lines = overview(project, "megu", RequestParams(), TODAY).person
    assert lines == [f"1 fulfilled: tell whoever asked (`megu request show {asked}`), then `megu request close {asked}`"]
    assert inbox.move([asked], "closed", {}) == [asked]


def test_what_waits_what_is_late_and_what_needs_a_person(project: Project) -> None:
    inbox = Inbox(project)
    late, held, checked = add(project, "A", "2026-11-20"), add(project, "B", "2026-12-04"), add(project, "C", "2026-12-24")
    inbox.review(lambda target: ("", 1))
    for _ in range(3):
        inbox.move([held], "accepted", {"failed": True, "why": "the gate turned megu/1 down: MIA"})
    also = add(project, "D", "2026-12-25")
    inbox.review(lambda target: ("", 1))
    for state in ("processing", "unlearned", "verified"):
        inbox.move([checked], state, {"version": "megu/10"})  # type: ignore[arg-type]
        inbox.move([also], state, {"version": "megu/9"})  # type: ignore[arg-type]
    facts = {"version": "1", "why": "promotion", "seal": "s" * 64, "approver": "Kim", "run_id": "x"}
    project.ledger.append(MOVED, "megu", facts)
    now = overview(project, "megu", RequestParams(), TODAY)
    assert now.requests == {"accepted": 2, "verified": 2}
    assert now.overdue == 1
    assert [(row["id"], row["days_left"]) for row in now.waiting] == [(late, -4), (held, 10), (checked, 30), (also, 31)]
    assert now.champion is not None
    assert (now.champion["version"], now.champion["approver"]) == ("megu/1", "Kim")
    text = markdown(now)
    assert json.loads(json.dumps(now.to_json()))["overdue"] == 1
    for said in ("megu/10 waits for approval", f"megu request retry {held}", "1 overdue, the first since 2026-11-20"):
        assert any(said in line for line in now.person), said
        assert said in text


def test_every_model_that_waits_is_named_and_what_has_no_version_does_not_stop_it(project: Project) -> None:
    inbox, versions = Inbox(project), ("megu/3", "other/7", "")
    requests = [add(project, name, "2026-12-24") for name in "ABC"]
    inbox.review(lambda target: ("", 1))
    for request, version in zip(requests, versions, strict=True):
        for state in ("processing", "unlearned", "verified"):
            inbox.move([request], state, {"version": version})  # type: ignore[arg-type]
    first, second, third = overview(project, "megu", RequestParams(), TODAY).person
    assert first.startswith("megu/3 waits for approval")
    assert second.startswith("other/7 waits for approval")
    assert requests[2] in third
    assert "registry.enabled: true" in third


def test_what_is_fulfilled_is_to_be_told_and_closed(project: Project) -> None:
    inbox = Inbox(project)
    one = add(project, "A", "2026-12-24")
    inbox.review(lambda target: ("", 1))
    for state in ("processing", "unlearned", "verified", "approved", "promoted"):
        inbox.move([one], state, {"version": "megu/2"})  # type: ignore[arg-type]
    said = f"1 fulfilled: tell whoever asked (`megu certificate --request {one}`), then `megu request close {one}`"
    assert overview(project, "megu", RequestParams(), TODAY).person == [said]
    awaited = "1 fulfilled, and close when the server serves the champion: reload it, then `megu status`"
    assert overview(project, "megu", RequestParams(), TODAY, awaited=True).person == [awaited]
    assert overview(project, "other", RequestParams(), TODAY, awaited=True).person == [said]
    inbox.move([one], "closed", {})
    assert overview(project, "megu", RequestParams(), TODAY).person == []


@pytest.fixture
def prefect() -> Iterator[str]:
    """Two answers as Prefect's API gives them."""
    answers: dict[str, Any] = {
        "/api/deployments/filter": [{"id": "d1", "name": "process"}],
        "/api/flow_runs/filter": [
            {"deployment_id": "d1", "auto_scheduled": True, "expected_start_time": "2026-11-25T03:00:00Z"},
            {"deployment_id": "d1", "auto_scheduled": True, "expected_start_time": "2026-11-26T03:00:00Z"},
        ],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != "Basic YTpi":  # a:b
                self.send_error(401)
                return
            content = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()


def test_the_next_run_of_each_schedule_is_prefect_s(project: Project, prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    refused = overview(project, "megu", RequestParams(), TODAY)
    assert refused.schedules is None
    assert "refuses the login" in markdown(refused)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "a:b")
    assert overview(project, "megu", RequestParams(), TODAY).schedules == [
        {"deployment": "process", "next": "2026-11-25T03:00:00Z"}
    ]
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert overview(project, "megu", RequestParams(), TODAY).schedules is None


def test_it_is_quick_with_a_thousand_requests(project: Project) -> None:
    requests = [
        Request(classes=("A",), basis="contract", requester="internal", due="2026-12-24", reference=f"DSR-{n}")
        for n in range(1000)
    ]
    Inbox(project).add_all(requests, "file")
    started = time.process_time()
    overview(project, "megu", RequestParams(), TODAY)
    assert time.process_time() - started < 1
