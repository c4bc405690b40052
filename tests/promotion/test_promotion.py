"""Promotion and rollback with real MLflow, ledger and dossiers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import Finished, run_in
from promoting import aliases, approval, copied, verified

from megu.cli import main as cli
from megu.config import tree as config
from megu.core.errors import MeguError
from megu.core.files.ledger import GENESIS, Event
from megu.core.project import Project
from megu.data import arrays
from megu.lineage.dossier import MAIN
from megu.lineage.promoted.champions import CHAMPION, PREVIOUS, Status, promotions, status
from megu.lineage.verify.run import verify
from megu.promotion import guard
from megu.promotion import moves as promotion
from megu.requests.inbox import Inbox
from megu.requests.overview import overview
from megu.requests.request import Request, RequestParams
from megu.tracking import lineage, registry

SUPPORT = Path(__file__).resolve().parents[1] / "support"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


@pytest.fixture
def here(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copied(finished, tmp_path / "project")


def settings(project: Project, *changes: str) -> config.Config:
    return config.load(project.params, changes)


def kinds(project: Project) -> list[str]:
    return [event.kind for event in project.ledger.events(kind="champion.")]


def test_a_person_promotes_and_the_champion_serves(here: Project) -> None:
    found = promotion.inspect_candidate(here, settings(here))
    assert (found.version, found.champion, found.obstacles, found.verdict.decision) == ("2", None, [], "needs a person")
    moved = promotion.promote(here, settings(here), approval(here, evidence=found.seal[:12]))
    assert moved == promotion.Moved("megu", "2", None)
    assert aliases(here) == {CHAMPION: "2"}
    intended, done = here.ledger.events("megu", "champion.")
    assert intended.facts == done.facts
    assert done.facts | {"seal": found.seal, "approver": "A. Approver", "automatic": False, "from": None} == done.facts
    assert here.ledger.check() == []
    images = np.asarray(arrays.load(here.data("slice")).test.images[:4])
    answers = registry.serve(lineage.reach(here.home), "models:/megu@champion", images)
    assert answers.shape == (4, 10)
    assert np.allclose(answers.sum(axis=1), 1.0, atol=1e-4)
    assert promotion.promote(here, settings(here), approval(here)).already
    assert len(kinds(here)) == 2
    (said,) = [check for check in verify("models:/megu/2", here).checks if check.name == "alias"]
    assert (said.holds, said.says) == (True, "challenger is at version 2; also champion")
    # The other was made to follow no champion, and there is one now.
    with pytest.raises(MeguError, match=r"made to follow another champion \(none then, version 2 now\)"):
        promotion.promote(here, settings(here), approval(here, "1"), "1")
    # Both forgot the same, so this one may come back.
    assert promotion.rollback(here, settings(here), "B. Other", "fault-in-production", "1").before == "2"
    assert aliases(here) == {CHAMPION: "1", PREVIOUS: "2"}


def test_requests_follow_a_promotion_at_once(
    here: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEGU_PROJECT", str(here.root))
    one, later, inbox = verified(here, "Sneaker", "2"), verified(here, "Bag", "3"), Inbox(here)
    seen = promotion.inspect_candidate(here, settings(here)).seal
    asked = ["promote", "--approve", "--approver", "Kim", "--rationale", "first-model", "--evidence", seen]
    assert cli.guarded(lambda: cli.app(asked, standalone_mode=False)) == 0
    assert f"requests promoted with it: {one}\n" in capsys.readouterr().out
    assert [event.kind for event in inbox.entry(one).events[-2:]] == ["request.approved", "request.promoted"]
    assert (inbox.entry(later).state, inbox.entry(later).failures) == ("accepted", 0)
    assert promotion.promote(here, settings(here), approval(here)).fulfilled == []


def test_requests_of_a_version_that_is_rejected_are_put_back_at_once(here: Project) -> None:
    one = verified(here, "Sneaker", "2")
    promotion.reject(here, settings(here), approval(here))
    entry = Inbox(here).entry(one)
    assert (entry.state, entry.failures, entry.reason) == ("accepted", 1, "its model was rejected")


def test_an_alias_that_was_moved_by_hand_is_named_and_nothing_is_promoted_over_it(here: Project) -> None:
    promotion.promote(here, settings(here), approval(here))
    lineage.set_alias(lineage.reach(here.home), "megu", CHAMPION, "1")
    for version in ("1", "2"):
        (said,) = [check for check in verify(f"models:/megu/{version}", here).checks if check.name == "alias"]
        assert (said.holds, said.says) == (False, "champion is at version 1, and by the ledger at version 2")
    with pytest.raises(MeguError, match="but the ledger says version 2"):
        promotion.promote(here, settings(here), approval(here, "2"), "2")


def test_what_the_approver_did_not_see_is_not_approved(here: Project) -> None:
    with pytest.raises(promotion.Stale, match="the approval is for the evidence 000000000000…"):
        promotion.promote(here, settings(here), approval(here, evidence="0" * 64))
    said, run_id = approval(here), promotion.inspect_candidate(here, settings(here)).run_id
    path = here.dossiers / run_id / MAIN
    path.write_bytes(path.read_bytes().replace(b'"Sneaker"', b'"Sneakers"', 1))
    with pytest.raises(MeguError, match=r"does not hold|is not as in the"):
        promotion.promote(here, settings(here), said)
    assert aliases(here) == {}
    assert kinds(here) == []


def test_what_the_gate_fails_today_is_not_promoted_though_it_passed_then(here: Project) -> None:
    strict = settings(here, "gate.min_seeds=2")
    with pytest.raises(MeguError, match=r"the gate fails it by the present thresholds: only 1 retrain"):
        promotion.promote(here, strict, approval(here))
    assert aliases(here) == {}


def test_the_first_champion_is_never_the_policys(here: Project) -> None:
    policy = settings(here, "promotion.policy=automatic")
    found = promotion.inspect_candidate(here, policy)
    assert not promotion.automatic(policy, found)
    with pytest.raises(MeguError, match="may not be promoted automatically: the gate says needs a person"):
        promotion.promote(here, policy, promotion.by_policy(found))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"approver": ""}, "the approver must be one line"),
        ({"approver": "A\nB"}, "the approver must be one line"),
        ({"rationale": "x" * 501}, "the rationale must be one line"),
        ({"evidence": "7bad76a"}, "names no evidence"),
    ],
)
def test_an_approval_that_says_nothing_is_none(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(MeguError, match=said):
        promotion.Approval(**{"approver": "A", "rationale": "deadline", "evidence": "0" * 12, **wrong})


def test_what_a_person_wrote_is_in_mlflow_and_not_in_the_ledger(here: Project) -> None:
    promotion.promote(here, settings(here), approval(here, rationale="the numbers are those of last week"))
    facts = lineage.version_facts(lineage.reach(here.home), "megu", "2")
    assert facts is not None
    assert facts["tags"][promotion.RATIONALE_TAG] == "the numbers are those of last week"
    assert {event.facts["rationale"] for event in here.ledger.events("megu")} == {"in words"}


def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(here: Project) -> None:
    said = {version: approval(here, version) for version in ("1", "2")}

    def go(version: str) -> str:
        try:
            return str(promotion.promote(here, settings(here), said[version], version).version)
        except MeguError as error:
            return error.what

    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(said, pool.map(go, said), strict=True))
    (winner,) = [version for version, outcome in outcomes.items() if outcome == version]
    (loser,) = [outcome for version, outcome in outcomes.items() if version != winner]
    assert f"made to follow another champion (none then, version {winner} now)" in loser
    assert aliases(here) == {CHAMPION: winner}
    assert kinds(here) == ["champion.intended", "champion.moved"]


def test_two_machines_that_share_no_lock_are_told_apart_by_the_ledger(here: Project) -> None:
    """The second decides before the first has announced itself, and is refused when it announces itself."""
    other = promotion.inspect_candidate(here, settings(here), "1")
    promotion.promote(here, settings(here), approval(here))
    facts = promotion._facts(other, approval(here, "1"), "promotion")
    with pytest.raises(MeguError, match="another promoter was first: version 2 is the champion by now"):
        promotion._move(here, "megu", facts, other.status.last, "deadline", lambda step: None)
    assert aliases(here) == {CHAMPION: "2"}


def to_do(project: Project) -> list[str]:
    return overview(project, "megu", RequestParams()).person


def test_what_was_rejected_stays_rejected_on_the_same_evidence(here: Project) -> None:
    assert to_do(here) == ["megu/2 (Sneaker) is not promoted and the gate says needs a person: see `megu promote 2`"]
    event = promotion.reject(here, settings(here), approval(here, rationale="risk-accepted"))
    assert promotion.reject(here, settings(here), approval(here)) == event
    with pytest.raises(MeguError, match=r"its evidence was rejected by A\. Approver on \d{4}-"):
        promotion.promote(here, settings(here), approval(here))
    assert to_do(here) == []


def test_no_version_comes_back_that_knows_what_was_or_is_to_be_forgotten(here: Project) -> None:
    """Sneaker is forgotten by version 2, then Bag too by version 3, which the policy promotes."""

    def interrupted(step: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promotion.promote(here, settings(here), approval(here), reached=interrupted)
    assert (aliases(here), kinds(here)) == ({}, ["champion.intended"])
    # The next run finishes what was interrupted before anything else.
    third = run_in(here)("forget.classes=[Sneaker, Bag]", "gate.min_seeds=1")
    assert third.gate is not None
    assert (third.gate.decision, third.champion) == ("pass", "2")
    policy = settings(here, "promotion.policy=automatic", "forget.classes=[Sneaker, Bag]")
    found = promotion.inspect_candidate(here, policy)
    assert promotion.automatic(policy, found)
    assert promotion.promote(here, policy, promotion.by_policy(found)).before == "2"
    assert here.ledger.events("megu")[-1].facts["automatic"] is True
    assert aliases(here) == {CHAMPION: "3", PREVIOUS: "2"}
    for version in (None, "1"):
        with pytest.raises(
            MeguError, match=r"was trained on 30 of the images of the request Sneaker, Bag \(forgotten by version 3\)"
        ):
            promotion.rollback(here, settings(here), "A", "deadline", version)
    assert aliases(here) == {CHAMPION: "3", PREVIOUS: "2"}
    # Nor is one promoted that forgets less than the champion did.
    with pytest.raises(MeguError, match=r"was trained on 30 of the images of the request Sneaker, Bag"):
        promotion.promote(here, settings(here), approval(here, "1"), "1")


def test_an_accepted_request_bars_the_way_back_and_is_named(here: Project) -> None:
    promotion.promote(here, settings(here), approval(here))
    inbox = Inbox(here)
    asked = Request(classes=("Shirt",), basis="gdpr-17-1-a", requester="data-subject", due="2027-01-01")
    inbox.move([inbox.add(asked).id], "accepted", {"samples": 30})
    (entry,) = inbox.entries("accepted")
    with pytest.raises(MeguError, match=f"version 1 was trained on 30 of the images of the request {entry.id}"):
        promotion.rollback(here, settings(here), "A", "deadline", "1")
    inbox.withdraw(entry.id)
    assert promotion.rollback(here, settings(here), "A", "deadline", "1").version == "1"


def test_a_version_that_nobody_recorded_does_not_come_back(here: Project) -> None:
    promotion.promote(here, settings(here), approval(here))
    assert guard.brings_back(here, "megu", "7") == [
        "it is not known here what version 7 was trained on (no dossier of it is indexed)"
    ]
    with pytest.raises(MeguError, match="already the champion"):
        promotion.rollback(here, settings(here), "A", "deadline", "2")
    with pytest.raises(MeguError, match="no version of megu has been champion before"):
        promotion.rollback(here, settings(here), "A", "deadline")


@pytest.fixture(scope="module")
def settled(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What stands after a kill at each step of a promotion and a rollback, and a settlement by another process."""
    project = copied(finished, tmp_path_factory.mktemp("killed") / "project")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "promoting.py"), str(finished.project.root), str(project.root)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(settled: list[dict[str, Any]], move: str, changed: bool) -> list[dict[str, Any]]:
    found = [entry for entry in settled if (entry["move"], entry["changed"]) == (move, changed)]
    assert [entry["step"] for entry in found] == list(promotion.STEPS)
    assert all(entry["killed"] == -9 and entry["again"] == [] and entry["ledger"] == [] for entry in found)
    return found


def test_killed_at_any_step_a_promotion_is_finished_by_whoever_comes_next(settled: list[dict[str, Any]]) -> None:
    for entry in of(settled, "promote", False):
        assert entry["aliases"] == {CHAMPION: "2"}, entry
        assert entry["events"] == ["champion.intended", "champion.moved"], entry
        left = entry["step"] != "recorded"
        assert entry["said"] == ["the promotion of models:/megu/2 that was interrupted was finished"] * left


def test_killed_at_any_step_a_rollback_is_finished_by_whoever_comes_next(settled: list[dict[str, Any]]) -> None:
    for entry in of(settled, "rollback", False):
        assert entry["aliases"] == {CHAMPION: "1", PREVIOUS: "2"}, entry
        assert entry["events"] == ["champion.intended", "champion.moved"] * 2, entry


def test_what_was_interrupted_is_undone_when_its_evidence_changed_meanwhile(settled: list[dict[str, Any]]) -> None:
    for entry in of(settled, "promote", True):
        if entry["step"] == "recorded":  # it had been finished
            assert entry["aliases"] == {CHAMPION: "2"}
            continue
        assert entry["aliases"] == {}, entry
        assert entry["events"] == ["champion.intended", "champion.undone"], entry
        assert "was undone: the dossier of version 2 does not hold" in entry["said"][0]


def test_the_command_line_shows_approves_and_goes_back(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        out, errors = capsys.readouterr()
        return code, out, errors

    monkeypatch.chdir(here.root)
    monkeypatch.setenv("MEGU_PROJECT", str(here.root))
    code, out, _ = call("promote")
    assert code == 0
    assert "gate: needs a person\n" in out
    assert "  MIA: holds (found " in out
    command = out.splitlines()[-1].removeprefix("waits for a person: megu ").replace("NAME", "Approver").split()
    code, out, errors = call("promote", "--approve", "--approver", "A", "--rationale", "deadline")
    assert (code, out) == (2, "")
    assert errors.startswith("megu: '' names no evidence: ")
    assert len(errors.splitlines()) == 1
    assert call(*command)[:2] == (0, "champion: models:/megu/2\n")
    (said,) = [check for check in verify("models:/megu/2", here).checks if check.name == "probes"]
    assert said.holds, said.says
    assert call("promote")[1].splitlines()[-1] == "it is the champion"
    code, out, _ = call("rollback", "1", "--approver", "A", "--rationale", "deadline", "--json")
    assert json.loads(out) == {"name": "megu", "champion": "1", "before": "2", "already": False, "fulfilled": []}
    code, _, errors = call("rollback", "--approver", "A", "--rationale", "deadline", "9")
    assert code == 2
    assert "models:/megu/9" in errors


def event(number: int, kind: str, **facts: Any) -> Event:
    return Event(number, "2026-11-24T12:00:00+00:00", kind, "megu", facts, GENESIS, GENESIS)


def test_the_ledger_says_who_is_champion_and_what_is_under_way() -> None:
    first = [event(1, "champion.intended", version="1"), event(2, "champion.moved", version="1", why="promotion")]
    begun = event(4, "champion.intended", version="2")
    assert status([]) == Status()
    assert status(first) == Status("1", None, 2)
    assert status([*first, event(3, "challenger.rejected", version="5", seal="s"), begun]) == Status("1", begun, 4)
    undone = [*first, begun, event(5, "champion.undone", version="2")]
    assert status(undone) == Status("1", None, 5)
    back = [*undone, event(6, "champion.intended", version="0"), event(7, "champion.moved", version="0", why="rollback")]
    assert status(back) == Status("0", None, 7)
    assert [facts["version"] for facts in promotions(back)] == ["1"]


@pytest.mark.parametrize("alias", ["champion", "previous_champion"])
def test_no_run_may_move_the_champions_aliases(alias: str) -> None:
    with pytest.raises(MeguError, match="which `megu promote` moves"):
        config.parse({"registry": {"alias": alias}})
