"""A project's list: it grows once, shrinks for a reason only, and what only vanished is an error."""

from __future__ import annotations

from datetime import date

import pytest
from purge_fixtures import garments
from suppression_fixtures import KEY, OTHER, listing, record

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.suppression.store import ADDED, IMPORTED, REASONS, REMOVED, Suppressions

IMAGES = garments(6, 3, size=32)


def kinds(project: Project) -> list[str]:
    return [event.kind for event in project.ledger.events(kind="suppression.")]


def test_a_project_without_a_list_has_none_and_needs_no_key(project: Project) -> None:
    kept = Suppressions(project)
    assert (kept.records(), kept.state, len(kept.opened())) == ([], "", 0)
    assert not kept.root.exists()


def test_a_record_is_kept_once_and_a_kill_between_file_and_event_is_made_good(project: Project) -> None:
    new = listing(project, IMAGES)
    kept = Suppressions(project)
    kept.add([new])
    assert kinds(project) == [ADDED]
    other = record(IMAGES[:2], data="others")
    kept.path(other.header.id).write_bytes(other.to_bytes())  # killed before the event
    assert [entry.header.data for entry in kept.records()] in (["photos", "others"], ["others", "photos"])
    kept.add([other])
    assert kinds(project) == [ADDED, ADDED]
    assert (kept.opened().find(IMAGES).certain >= 0).all()


def test_a_record_that_vanished_is_an_error_until_an_export_brings_it_back(project: Project) -> None:
    new = listing(project, IMAGES)
    kept = Suppressions(project)
    kept.path(new.header.id).unlink()
    for broken in (kept.records, kept.opened):
        with pytest.raises(MeguError, match=f"lacks the record {new.header.id}: .*megu suppress import"):
            broken()
    assert kept.state, "data sets are not taken for clean"
    taken, lines = kept.take(new.to_bytes(), "list")
    assert (taken, lines, kept.records()) == ([new], [], [new])
    assert kinds(project) == [ADDED, IMPORTED]
    assert kept.take(new.to_bytes(), "list") == ([], [])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda one, two: one + two[:-1], "cut off"),
        (lambda one, two: one + b"{}\n", "not a suppression list"),
        (lambda one, two: b"\x89PNG\r\n", "not a suppression list"),
        (lambda one, two: one + two[:-1] + bytes([two[-1] ^ 1]), "does not open"),
        (lambda one, two: one + record(IMAGES, OTHER).to_bytes(), "made under another key"),
    ],
)
def test_a_list_that_is_not_whole_or_not_ours_is_refused_and_nothing_of_it_is_taken(project, spoil, says) -> None:  # type: ignore[no-untyped-def]
    listing(project, garments(2, seed=9))
    before = kinds(project)
    content = spoil(record(IMAGES).to_bytes(), record(IMAGES[:2], data="others").to_bytes())
    with pytest.raises(MeguError, match=says):
        Suppressions(project).take(content, "list")
    assert (len(Suppressions(project).records()), kinds(project)) == (1, before)


@pytest.mark.parametrize("reason", REASONS)
def test_a_record_is_removed_for_a_reason_that_the_ledger_keeps_and_is_not_taken_again(project: Project, reason: str) -> None:
    new = listing(project, IMAGES)
    kept = Suppressions(project)
    kept.remove(new.header.id, reason)
    assert (kept.records(), kept.state) == ([], "")
    assert project.ledger.events(new.header.id, REMOVED)[0].facts == {"why": reason}
    taken, lines = kept.take(new.to_bytes(), "list")
    assert taken == []
    assert len(lines) == 1
    assert f"({reason}) and is not imported again" in lines[0]


def test_a_removal_that_was_killed_after_its_event_counts(project: Project) -> None:
    new = listing(project, IMAGES)
    project.ledger.append(REMOVED, new.header.id, {"why": "court-order"})
    assert Suppressions(project).path(new.header.id).is_file()
    assert (Suppressions(project).records(), Suppressions(project).state) == ([], "")
    Suppressions(project).remove(new.header.id, "court-order")
    assert not Suppressions(project).path(new.header.id).is_file()
    assert kinds(project) == [ADDED, REMOVED]


def test_no_record_goes_without_one_or_for_another_reason(project: Project) -> None:
    new = listing(project, IMAGES)
    with pytest.raises(MeguError, match="is not a reason to remove a record: one of consent-given, "):
        Suppressions(project).remove(new.header.id, "spring cleaning")
    for name in ("s0123456789abcdef", "../keys/commitments"):
        with pytest.raises(MeguError, match="there is no suppression record"):
            Suppressions(project).remove(name, "court-order")
    assert kinds(project) == [ADDED]


def test_what_is_over_goes_and_says_so(project: Project) -> None:
    over, other = listing(project, IMAGES, until="2026-12-01"), listing(project, IMAGES[:1], until="2026-12-02")
    assert Suppressions(project).expire(date(2026, 12, 2)) == [over.header.id]
    assert Suppressions(project).records() == [other]
    assert project.ledger.events(over.header.id, REMOVED)[0].facts == {"why": "retention-expired"}


def test_without_the_key_nothing_is_taken_for_clean(project: Project) -> None:
    listing(project, IMAGES)
    (project.keys / "commitments.key").unlink()
    with pytest.raises(MeguError, match="the key of the suppression list is not here"):
        Suppressions(project).opened()
    (project.keys / "commitments.key").write_text(OTHER.hex())
    with pytest.raises(MeguError, match=r"does not open: use the commitments\.key that it was made with"):
        Suppressions(project).opened()
    (project.keys / "commitments.key").write_text(KEY.hex())
    assert len(Suppressions(project).opened()) == 6
