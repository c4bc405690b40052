"""Requests over HTTP, by the application itself: no port, no server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from megu.errors import MeguError
from megu.project import Project
from megu.requests import http
from megu.requests.inbox import Inbox
from megu.requests.request import RequestParams

TOKEN = "a token of some length"
BODY: dict[str, Any] = {"files": ["anna/1.png"], "basis": "gdpr-17-1-b", "requester": "data-subject", "reference": "DSR-7"}


@pytest.fixture
def inbox(project: Project) -> Inbox:
    return Inbox(project)


@pytest.fixture
def client(inbox: Inbox) -> TestClient:
    found = TestClient(http.application(inbox, RequestParams(), TOKEN))
    found.headers["Authorization"] = f"Bearer {TOKEN}"
    return found


def test_a_request_comes_in_once_and_can_be_asked_about(client: TestClient, inbox: Inbox) -> None:
    first, again = client.post("/requests", json=BODY), client.post("/requests", json=BODY)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == {"id": inbox.entries()[0].id, "new": True, "state": "received"}
    assert again.json()["new"] is False
    asked = client.get(f"/requests/{first.json()['id']}")
    assert asked.json()["state"] == "received"
    assert "anna" not in first.text + asked.text
    assert inbox.entries()[0].facts["via"] == "http"


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", f"{TOKEN}x"])
def test_without_the_token_nothing_is_taken_or_told(client: TestClient, inbox: Inbox, token: str) -> None:
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.post("/requests", json=BODY).status_code == 401
    assert client.get("/requests/r0").status_code == 401
    assert inbox.entries() == []


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 422, "no request"),
        (json.dumps({**BODY, "requester": "Anna"}).encode(), 422, "requester must be one of"),
        (json.dumps({**BODY, "note": "for Anna"}).encode(), 422, "no free text"),
        (b"x" * (5 << 20), 413, "at most"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(client: TestClient, content: bytes, code: int, said: str) -> None:
    answer = client.post("/requests", content=content)
    assert answer.status_code == code
    assert said in answer.json()["error"]
    assert "Anna" not in answer.text


def test_what_is_fulfilled_is_answered_with_when_and_by_no_new_request(client: TestClient, inbox: Inbox) -> None:
    one = client.post("/requests", json=BODY).json()["id"]
    for state in ("accepted", "processing", "unlearned", "verified", "approved", "promoted", "closed"):
        inbox.move([one], state, {})  # type: ignore[arg-type]
    again = client.post("/requests", json=BODY)
    assert again.status_code == 409
    assert (again.json()["id"], again.json()["state"]) == (one, "closed")
    assert again.json()["since"] == inbox.entry(one).events[-1].time
    assert len(inbox.entries()) == 1


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    assert client.get("/requests/r0").status_code == 404


def test_nothing_is_served_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.TOKEN, "short")
    with pytest.raises(MeguError, match="at least 16"):
        http.token()
    monkeypatch.setenv(http.TOKEN, TOKEN)
    assert http.token() == TOKEN
