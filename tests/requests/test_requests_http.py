"""Requests over HTTP: the application itself, and a real server with clients that no server should have."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from ports import HOST, free_port
from purge_fixtures import garments
from starlette.testclient import TestClient

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.requests.inbox import Inbox
from megu.requests.intake import http
from megu.requests.request import RequestParams
from megu.subjects.store import Subjects

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


def test_a_person_is_a_request_for_each_data_set_and_is_named_nowhere(client: TestClient, inbox: Inbox) -> None:
    anna = {**{name: value for name, value in BODY.items() if name != "files"}, "subjects": ["anna@example.org"]}
    refused = client.post("/requests", json=anna)
    assert (refused.status_code, refused.json()["error"].split(":")[0]) == (422, "no data set here has subjects")
    for number, name in enumerate(("photos", "badges")):
        images, halves = garments(8, size=8, seed=number), [0, 1, 0, 1]
        data = arrays.save(
            inbox.project.data(name), name=name, classes=("a", "b"), train=(images[:4], halves), test=(images[4:], halves)
        )  # type: ignore[arg-type]
        Subjects(inbox.project).record(name, {(bytes(data.train.ids[0]), "anna@example.org"), (bytes(data.test.ids[1]), "bo")})
    first, again = client.post("/requests", json=anna), client.post("/requests", json=anna)
    assert (first.status_code, again.status_code) == (201, 200)
    rows = first.json()["requests"]
    assert (
        [row["id"] for row in rows]
        == [entry.id for entry in inbox.entries()]
        == [row["id"] for row in again.json()["requests"]]
    )
    assert len({entry.facts["person"] for entry in inbox.entries()}) == 1
    nobody = client.post("/requests", json={**anna, "subjects": "carl@example.org"})
    assert (nobody.status_code, "there is no sample of this subject" in nobody.json()["error"]) == (422, True)
    assert "example" not in first.text + again.text + nobody.text
    assert not any(b"example" in path.read_bytes() for path in inbox.project.root.rglob("*") if path.is_file())


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
        (b"[]", 422, "is not a request"),
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


# --- a real server, and clients of every kind ---------------------------------------------------------------------------------

PATIENCE_S = 0.4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Inbox]]:
    """The server as `megu request serve` starts it, with less patience: its port and its inbox."""
    root = tmp_path_factory.mktemp("served")
    (root / "params.yaml").write_text("seed: 0\n")
    inbox, port = Inbox(Project(root)), free_port()
    served = uvicorn.Server(http.server(http.application(inbox, RequestParams(), TOKEN), HOST, port, PATIENCE_S))
    thread = threading.Thread(target=served.run)
    thread.start()
    while not served.started:
        time.sleep(0.01)
    yield port, inbox
    served.should_exit = True
    thread.join()


def head(*lines: str, post: str = "POST /requests HTTP/1.1") -> bytes:
    given = [post, "Host: x", f"Authorization: Bearer {TOKEN}", *lines]
    return "\r\n".join([*given, "", ""]).encode("latin-1")


def body(content: bytes, *lines: str) -> bytes:
    return head("Content-Type: application/json", f"Content-Length: {len(content)}", *lines) + content


def told(port: int, *parts: bytes, pause: float = 0.0, first: bool = False) -> bytes:
    """Everything that the server answers until it closes; first: until it has answered once."""
    with socket.create_connection((HOST, port), timeout=10) as connected:
        for part in parts:
            with suppress(OSError):
                connected.sendall(part)
            time.sleep(pause)
        heard = bytearray()
        with suppress(ConnectionResetError):
            while part := connected.recv(65536):
                heard += part
                if first and b"\r\n\r\n" in heard:
                    break
    return bytes(heard)


def codes(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


GOOD = json.dumps({"classes": ["Bag"], "basis": "contract", "requester": "internal"}).encode()
CHUNKED = head("Content-Type: application/json", "Transfer-Encoding: chunked")
WRONG: dict[str, tuple[list[bytes], int]] = {
    "deep": ([body(b"[" * 5000)], 400),
    "deeper": ([body(b'{"classes":' * 200_000)], 400),
    "deep and closed": ([body(b"[" * 50_000 + b"]" * 50_000)], 400),
    "duplicate keys": ([body(b'{"classes": ["Bag"], "classes": ["Coat"], "basis": "contract", "requester": "internal"}')], 400),
    "NaN": ([body(b'{"classes": [NaN]}')], 400),
    "Infinity": ([body(b'{"due": -Infinity}')], 400),
    "a number without end": ([body(b'{"reference": ' + b"1" * 5000 + b"}")], 400),
    "half of a pair": ([body(b'{"classes": ["\\ud800"], "basis": "contract", "requester": "internal"}')], 422),
    "half of a pair as a key": ([body(b'{"\\ud800": 1}')], 422),
    "half of a pair as a data set": ([body(b'{"classes": ["a"], "basis": "contract", "requester": "court", "data": "\\ud800"}')], 422),
    "nul": ([body(b'{"classes": ["a\\u0000b"], "basis": "contract", "requester": "internal"}')], 422),
    "not UTF-8": ([body(b'{"classes": ["\xff"]}')], 400),
    "UTF-16": ([body(GOOD.decode().encode("utf-16"))], 400),
    "empty": ([body(b"")], 400),
    "a number": ([body(b"7")], 422),
    "truth": ([body(b'{"classes": [true], "basis": "contract", "requester": "internal"}')], 422),
    "a form": ([head("Content-Type: application/x-www-form-urlencoded", "Content-Length: 3") + b"a=b"], 415),
    "another charset": ([head("Content-Type: application/json; charset=latin-1", f"Content-Length: {len(GOOD)}") + GOOD], 415),
    "compressed": ([body(GOOD, "Content-Encoding: gzip")], 415),
    "too long, said before": ([head("Content-Type: application/json", f"Content-Length: {1 << 30}")], 413),
    "too long, in chunks": ([CHUNKED, *([b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"] * 5), b"0\r\n\r\n"], 413),
    "no length that is a number": ([head("Content-Type: application/json", "Content-Length: many")], 400),
    "a negative length": ([head("Content-Type: application/json", "Content-Length: -1")], 400),
    "two lengths": ([head("Content-Length: 5", "Content-Length: 6") + b"hello"], 400),
    "a length and chunks": ([head(f"Content-Length: {len(GOOD)}", "Transfer-Encoding: chunked") + b"0\r\n\r\n"], 400),
    "a chunk that is none": ([CHUNKED + b"zz\r\nhello\r\n"], 400),
    "no HTTP": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"], 400),
    "a head without end": ([head() [:-2] + b"X: " + b"x" * (32 << 10)], 400),
    "another method": ([head(post="DELETE /requests HTTP/1.1")], 405),
    "another path": ([head(post="GET /../../etc/passwd HTTP/1.1")], 404),
    "a path of nonsense": ([head(post="GET /requests/%00%ff%2e%2e HTTP/1.1")], 404),
    "shorter than it said": ([head("Content-Type: application/json", "Content-Length: 500") + GOOD], 408),
    "an upgrade": ([head("Upgrade: websocket", "Connection: Upgrade", post="GET /requests HTTP/1.1")], 405),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_a_4xx_and_at_most_a_line_in_the_log(
    place: tuple[int, Inbox], wrong: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    port, inbox = place
    parts, code = WRONG[wrong]
    before = inbox.ledger.head
    assert codes(told(port, *parts, first=True)) == [code]
    assert inbox.ledger.head == before
    assert len(caplog.records) <= 1
    assert not any(record.exc_info for record in caplog.records)
    assert capfd.readouterr().err.count("\n") <= 1


def test_who_does_not_end_a_request_in_time_is_dropped_however_often_a_byte_comes(place: tuple[int, Inbox]) -> None:
    port, _ = place
    whole = body(GOOD)

    def trickled(content: bytes) -> tuple[list[int], float]:
        began = time.monotonic()
        heard = told(port, *(content[at : at + 1] for at in range(12)), pause=PATIENCE_S / 8)
        return codes(heard), time.monotonic() - began

    with ThreadPoolExecutor(40) as pool:
        slow = [pool.submit(trickled, content) for content in [b"P", whole, b"GET /requests/r0 HTTP/1.1"] * 10]
        silent = [pool.submit(told, port) for _ in range(5)]
        meanwhile = codes(told(port, body(GOOD.replace(b"Bag", b"Coat"), "Connection: close")))
        assert meanwhile == [201], "others are served"
        assert all(found.result()[0] == [408] and found.result()[1] < 12 * PATIENCE_S for found in slow)
        assert all(found.result() == b"" for found in silent), "who said nothing is told nothing"


def test_requests_one_after_the_other_and_at_once_come_in_once(place: tuple[int, Inbox]) -> None:
    port, inbox = place
    number = [GOOD[:-1] + f', "reference": "DSR-{number}"}}'.encode() for number in range(8)]
    assert codes(told(port, body(number[0]) + body(number[1]) + body(number[0], "Connection: close"))) == [201, 201, 200]
    in_chunks = CHUNKED + b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (number[2][:9], number[2][9:]))
    assert codes(told(port, in_chunks + b"0\r\n\r\n" + body(number[2], "Connection: close"))) == [201, 200]
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(told, port, body(number[3 + at % 4], "Connection: close")) for at in range(24)]
        found = sorted(code for answer in answers for code in codes(answer.result()))
    assert found == [200] * 20 + [201] * 4
    assert len([entry for entry in inbox.entries() if entry.facts["reference"].startswith("DSR-")]) == 7
    assert inbox.ledger.check() == []


def test_what_is_wrong_with_the_server_is_no_fault_of_the_request(
    client: TestClient, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.ledger.path.mkdir(parents=True)  # no file can be there
    answers = [client.post("/requests", json=BODY), client.get("/requests/r0")]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert str(inbox.project.root) not in "".join(answer.text for answer in answers)
    assert [record.message.count("cannot be used") for record in caplog.records if record.name == "uvicorn.error"] == [1, 1]


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    assert client.get("/requests/r0").status_code == 404


def test_nothing_is_served_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.TOKEN, "short")
    with pytest.raises(MeguError, match="at least 16"):
        http.token()
    monkeypatch.setenv(http.TOKEN, TOKEN)
    assert http.token() == TOKEN
