"""What follows a promotion: a webhook that may fail, a server that is looked at, requests that close when it has the champion."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ports import HOST, free_port
from scoring_server import moved, predicting, promoted, rows, said, scoring

from megu.cli import main as cli
from megu.config.tree import parse
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.promotion.params import PromotionParams
from megu.requests.inbox import Inbox
from megu.requests.request import Request
from megu.serving import follow, webhook

CHAMPION, OTHER = rows(1), rows(2)


def fulfilled(project: Project, name: str, version: str = "megu/2") -> str:
    inbox = Inbox(project)
    one = inbox.add(Request(classes=(name,), basis="contract", requester="internal", due="2030-12-24", data="photos")).id
    inbox.review(lambda target: ("", 1))
    for state in ("processing", "unlearned", "verified", "approved", "promoted"):
        inbox.move([one], state, {"version": version})  # type: ignore[arg-type]
    return one


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    promoted(project, CHAMPION, OTHER)
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return project


def test_a_request_closes_when_the_champion_was_seen_and_not_before(here: Project) -> None:
    one, other = fulfilled(here, "a"), fulfilled(here, "b", "another/1")
    inbox = Inbox(here)
    with scoring(predicting(lambda count: OTHER[:count])) as server:
        params = PromotionParams(served=server.url)
        assert follow.follow(here, "megu", params).closed == []
        with pytest.raises(MeguError, match=f"{one}: the server of promotion.served was not seen to serve the champion"):
            follow.refuse_unseen(here, "megu", params, inbox.entry(one))
    follow.refuse_unseen(here, "megu", params, inbox.entry(other))
    follow.refuse_unseen(here, "megu", PromotionParams(), inbox.entry(one))
    with scoring(predicting(lambda count: CHAMPION[:count])) as server:
        params = PromotionParams(served=server.url)
        done = follow.follow(here, "megu", params)
        assert (done.closed, done.troubles) == ([one], [])
        assert follow.said(done) == ["the server: serves the champion (version 2)", f"closed with it: {one}"]
        assert follow.follow(here, "megu", params).closed == []
    assert (inbox.entry(one).state, inbox.entry(other).state) == ("closed", "promoted")
    (seen,) = here.ledger.events("megu", follow.SEEN)
    assert inbox.entry(one).events[-1].facts == {"served": "megu/2", "event": seen.number}
    assert here.ledger.check() == []


def test_a_webhook_is_told_once_a_move_and_after_failures(here: Project) -> None:
    (move,) = follow.last_moves(here)
    failing = [said(503, "busy"), said(500, "no"), said(204, "")]
    pauses: list[float] = []

    def answer(handler: Any, body: Any) -> None:
        failing.pop(0)(handler, body)

    with scoring(answer) as server:
        params = PromotionParams(webhook=f"{server.url}/hook")
        webhook.tell(here, move, params, pauses.append)
        webhook.tell(here, move, params, pauses.append)
    assert (pauses, len(server.asked), failing) == (list(webhook.PAUSES_S), 3, [])
    path, _, body = server.asked[-1]
    assert path == "/hook"
    assert (body["event"], body["model_uri"], body["before"]) == ("champion.moved", "models:/megu/2", "1")
    assert "Kim" not in json.dumps(body)


def test_a_webhook_that_fails_is_one_line_and_is_tried_again_by_the_next_run(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PAUSES_S", (0.0,))
    nobody = f"http://{HOST}:{free_port()}/T0/secret"
    monkeypatch.setenv("TEAM_HOOK", nobody)
    params = PromotionParams(webhook="$TEAM_HOOK")
    (line,) = follow.follow(here, "megu", params).troubles
    assert line.startswith(f"the webhook of megu/2 failed: {nobody.removesuffix('/T0/secret')} does not answer: ")
    assert "\n" not in line
    assert "secret" not in line
    monkeypatch.delenv("TEAM_HOOK")
    assert follow.follow(here, "megu", params).troubles == [
        "promotion.webhook: $TEAM_HOOK is not set to an http or https URL: export TEAM_HOOK=https://HOST/PATH"
    ]
    with scoring(said(200, "ok")) as server:
        monkeypatch.setenv("TEAM_HOOK", server.url)
        assert follow.follow(here, "megu", params).troubles == []
    assert webhook.is_told(here, follow.last_moves(here)[0])


def test_a_later_move_is_told_and_looked_at_anew(here: Project) -> None:
    with scoring(predicting(lambda count: CHAMPION[:count])) as server:
        params = PromotionParams(served=server.url)
        assert follow.follow(here, "megu", params).seen is not None
        moved(here, "3", "2")
        later = follow.follow(here, "megu", params)
        assert later.seen is not None
        assert (later.seen.verdict, later.seen.version) == ("unknown", "3")
        assert len(here.ledger.events("megu", follow.SEEN)) == 1


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*arguments: str) -> tuple[int, str, str]:
        code = cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return called


def test_the_status_looks_and_closes(here: Project, call: Call) -> None:
    one = fulfilled(here, "a")
    with scoring(predicting(lambda count: OTHER[:count])) as old, scoring(predicting(lambda count: CHAMPION[:count])) as new:
        code, out, _ = call("status", "--served", old.url)
        assert (code, "the server: still serves version 1\n" in out) == (1, True)
        code, out, _ = call("status", "--served", new.url, "--json")
        assert (code, json.loads(out)["served"]["verdict"]) == (0, "champion")
        # A server that only the command names closes nothing.
        assert Inbox(here).entry(one).state == "promoted"
        here.params.write_text(f"promotion: {{served: '{old.url}'}}\n")
        code, out, _ = call("status")
        assert (code, "the server: still serves version 1\n" in out) == (0, True)
        code, _, err = call("request", "close", one)
        assert (code, err.count("\n")) == (2, 1)
        here.params.write_text(f"promotion: {{served: '{new.url}'}}\n")
        code, _, err = call("status")
        assert (code, err) == (0, f"megu: closed with it: {one}\n")
    assert Inbox(here).entry(one).state == "closed"


@pytest.mark.parametrize("url", ["127.0.0.1:5001", "ftp://host", "http://", "http://user:pass@host", "http://host:99999"])
def test_an_address_that_is_none_is_refused_at_once(here: Project, call: Call, url: str) -> None:
    code, out, err = call("status", "--served", url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for key in ("served", "webhook"):
        with pytest.raises(MeguError, match=rf"promotion\.{key} = .* is out of range: it must be an http or https URL without"):
            parse({"promotion": {key: url}})


@pytest.mark.parametrize("value", [None, "$TEAM_HOOK", "https://host/path?x=1", "http://[::1]:5001"])
def test_an_address_or_a_variable_is_taken(value: str | None) -> None:
    found: Any = parse({"promotion": {"webhook": value}}).promotion
    assert found.webhook == value
