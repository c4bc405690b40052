"""What a promotion, a rejection or another champion means for requests; by the ledger alone."""

from __future__ import annotations

from typing import Any

import pytest

from megu.core.project import Project
from megu.lineage.promoted.champions import INTENDED, MOVED, REJECTED
from megu.requests.inbox import Inbox
from megu.requests.reconciling import reconcile, reconcile_all
from megu.requests.request import Request


@pytest.fixture
def inbox(project: Project) -> Inbox:
    return Inbox(project)


def verified(inbox: Inbox, name: str, version: str, champion: str = "") -> str:
    """A request that version ``version`` forgot and the gate passed."""
    added = inbox.add(Request(classes=(name,), basis="contract", requester="internal", due="2026-12-24")).id
    inbox.review(lambda target: ("", 1))
    inbox.move([added], "processing", {})
    inbox.move([added], "unlearned", {"version": version})
    inbox.move([added], "verified", {"version": version, "champion": champion})
    return added


def champion(inbox: Inbox, version: str, why: str = "promotion", kind: str = MOVED) -> None:
    facts: dict[str, Any] = {"version": version, "why": why, "seal": "s", "approver": "Kim", "run_id": "x"}
    inbox.ledger.append(kind, "megu", facts)


def test_a_promotion_fulfils_what_its_version_and_those_before_forgot(inbox: Inbox) -> None:
    first, second, third = verified(inbox, "A", "megu/1"), verified(inbox, "B", "megu/2"), verified(inbox, "C", "megu/3")
    champion(inbox, "2", kind=INTENDED)
    assert reconcile(inbox, "megu") == {}
    champion(inbox, "2")
    assert reconcile(inbox, "megu") == {"promoted": [first, second], "accepted": [third]}
    assert [entry.state for entry in inbox.entries()] == ["promoted", "promoted", "accepted"]
    assert reconcile(inbox, "megu") == {}
    kinds = [event.kind for event in inbox.entry(first).events]
    assert kinds[-2:] == ["request.approved", "request.promoted"]


def test_what_was_verified_without_a_registry_is_taken_up_again(inbox: Inbox) -> None:
    """An older processing run with registry.enabled: false left it there for ever."""
    one, other = verified(inbox, "A", ""), verified(inbox, "B", "megu/1")
    assert reconcile_all(inbox) == {"accepted": [one]}
    entry = inbox.entry(one)
    assert (entry.state, entry.failures, entry.reason) == ("accepted", 0, "no version of its model was registered")
    assert inbox.entry(other).state == "verified"


def test_the_version_of_a_run_by_hand_fulfils_nothing(inbox: Inbox) -> None:
    """It was not made from the requests, so it need not have forgotten them."""
    verified(inbox, "A", "megu/1")
    champion(inbox, "7")
    assert list(reconcile(inbox, "megu")) == ["accepted"]
    assert inbox.entries()[0].reason == "its model was made to follow another champion"
    assert inbox.entries()[0].failures == 0


def test_what_was_rejected_is_accepted_again_and_counts_as_a_failure(inbox: Inbox) -> None:
    one = verified(inbox, "A", "megu/1")
    champion(inbox, "1", "rejection", REJECTED)
    assert reconcile(inbox, "megu") == {"accepted": [one]}
    assert inbox.entries()[0].failures == 1


def test_two_processes_that_settle_at_once_count_a_rejection_once(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    one = verified(inbox, "A", "megu/1")
    champion(inbox, "1", "rejection", REJECTED)
    move = Inbox.move

    def late(own: Inbox, *arguments: Any, **named: Any) -> list[str]:
        monkeypatch.undo()
        assert reconcile(own, "megu") == {"accepted": [one]}  # the other, between this one's look and its move
        return move(own, *arguments, **named)

    monkeypatch.setattr(Inbox, "move", late)
    assert reconcile(inbox, "megu") == {"accepted": []}
    assert inbox.entry(one).failures == 1


def test_a_promotion_before_it_or_a_rollback_does_not_count(inbox: Inbox) -> None:
    champion(inbox, "1")
    one = verified(inbox, "A", "megu/2", champion="1")
    assert reconcile(inbox, "megu") == {}
    champion(inbox, "1", "rollback")
    assert reconcile(inbox, "megu") == {}
    assert inbox.entry(one).state == "verified"
