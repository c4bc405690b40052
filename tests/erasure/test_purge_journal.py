"""What a killed purge leaves of its journal holds images, and is no journal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from purge_fixtures import garments, patterns

from megu.config.tree import load
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data.sources import providers
from megu.erasure.journal import Journal
from megu.erasure.plan import Plan
from tasks.run.inputs import preflight

PLAN = Plan(created="2026-11-24T00:00:00+00:00", previous=None, key="k", policy={}, covers=[], witnessed=[])


def test_a_journal_says_what_it_was_told(project: Project) -> None:
    journal, looked_for = Journal.of(project), patterns(garments(3))
    assert not journal.open
    assert journal.begin([looked_for], lambda _: PLAN) == PLAN
    assert journal.open
    assert journal.plan() == PLAN
    journal.keep(added := replace(PLAN, policy={"ignored_runs": ["r"]}))
    assert journal.plan() == added
    for begin in (lambda: providers.fetch(project.root, "slice"), lambda: preflight(project, load(project.params))):
        with pytest.raises(MeguError, match="a purge was stopped half-way"):
            begin()
    assert (journal.patterns()[0].images == looked_for.images).all()
    journal.end()
    assert not journal.root.exists()


def test_what_was_not_whole_yet_or_not_any_more_goes_and_one_that_is_open_stays(project: Project) -> None:
    journal = Journal.of(project)
    begun = project.home / ".purge-killed" / "new"
    begun.mkdir(parents=True)
    (begun / "images-0.npy").write_bytes(b"x")
    journal.begin([patterns(garments(3))], lambda _: PLAN)
    journal.clear()
    assert not begun.parent.exists()
    assert journal.open
    (journal.root / "plan.json").unlink()
    journal.clear()
    assert not journal.root.exists()
