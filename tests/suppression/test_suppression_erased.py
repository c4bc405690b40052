"""What a purge puts on the list, and what is answered to a request for it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dossier_fixtures import RUN
from lineage_fixtures import git
from small_projects import Small, make

from megu.core.errors import MeguError
from megu.data import arrays, pins
from megu.data.sources import providers
from megu.erasure import act, run
from megu.erasure.params import PurgeParams
from megu.suppression import screening
from megu.suppression.answers import answer
from megu.suppression.store import ADDED, Suppressions

AT_ONCE = PurgeParams(models_days=0)
REQUEST = "r1"


def small(root: Path, scenario: str, **more: Any) -> Small:
    made = make(root, sets=1, scenario=scenario, **more)
    made.project.ledger.append("request.unlearned", REQUEST, {"mlflow_run": RUN})
    return made


def target(**names: list[str]) -> dict[str, list[str]]:
    return {"classes": [], "subclasses": [], "ids": [], "files": [], **names}


def rows(made: Small) -> int:
    return sum(len(positions) for positions in made.gone["a"].values())


def test_a_purge_lists_what_it_erases_before_it_erases_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small(tmp_path, "class")
    project = made.project

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(act, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            run.apply(project, [], AT_ONCE)
    assert len(arrays.load(project.data("a")).train) == 18, "nothing is erased yet"
    before = [record.to_bytes() for record in Suppressions(project).records()]
    assert sum(record.header.samples for record in Suppressions(project).records()) == rows(made)
    assert run.apply(project, [], AT_ONCE).resumed
    assert [record.to_bytes() for record in Suppressions(project).records()] == before
    assert len(project.ledger.events(kind=ADDED)) == len(before)
    headers = [record.header for record in Suppressions(project).records()]
    assert {(header.data, tuple(header.requests), tuple(header.runs)) for header in headers} == {("a", (REQUEST,), (RUN,))}
    assert (Suppressions(project).opened().find(np.stack(made.images)).certain >= 0).all()
    kept = np.asarray(arrays.load(project.data("a")).train.images)
    assert (Suppressions(project).opened().find(kept).certain == -1).all()


@pytest.mark.parametrize(("days", "until"), [(0, None), (30, "day"), (None, "ever")])
def test_how_long_they_stay_on_the_list_is_said(tmp_path: Path, days: int | None, until: str | None) -> None:
    made = small(tmp_path, "ids")
    run.apply(made.project, [], PurgeParams(models_days=0, suppress_days=days))
    headers = [record.header for record in Suppressions(made.project).records()]
    assert len(headers) == (0 if until is None else 1)
    assert all((header.until is None) == (until == "ever") for header in headers)


def test_an_old_commit_with_its_data_from_a_restored_cache_is_found_and_made_right(tmp_path: Path) -> None:
    made = small(tmp_path, "ids", committed=True)
    root, old = made.project.root, pins.read(made.project.root)["a"]
    cache = root / ".dvc" / "cache"
    shutil.copytree(cache, tmp_path / "backup")
    run.apply(made.project, [], AT_ONCE)
    shutil.copytree(
        tmp_path / "backup",
        cache,
        dirs_exist_ok=True,
        copy_function=lambda one, other: Path(other).exists() or shutil.copy2(one, other),
    )
    new = pins.read(root)["a"]
    git(root, "checkout", "-q", "HEAD", "--", "data.dvc")
    shutil.rmtree(root / "data" / "a")
    assert pins.read(root)["a"] == old != new
    with pytest.raises(MeguError, match=f"images? that were erased .*erased by {REQUEST}, on "):
        providers.fetch(root, "a", screen=partial(screening.screen, made.project, "refuse"))
    fetched = providers.fetch(root, "a", screen=partial(screening.screen, made.project, "drop"))
    assert fetched.notes[0].startswith("left out: ")
    assert pins.read(root)["a"] == new == pins.hash_dir(root / "data" / "a"), "the version that the purge made"


@pytest.mark.parametrize(("scenario", "kind"), [("ids", "ids"), ("class", "classes")])
def test_a_request_for_what_was_erased_is_answered_by_whom_and_when(tmp_path: Path, scenario: str, kind: str) -> None:
    made = small(tmp_path, scenario)
    names = made.said["train"] if kind == "ids" else list(made.said["classes"])
    assert answer(made.project, "a", target(**{kind: names})) == ""
    run.apply(made.project, [], AT_ONCE)
    day = Suppressions(made.project).records()[0].header.erased[:10]
    said = answer(made.project, "a", target(**{kind: names}))
    assert said == f"{len(names)} of them erased by {REQUEST}, on {day}"
    assert answer(made.project, "a", target(ids=["0" * 32], classes=["Hat"], files=["Boot red/001"])) == ""
    assert answer(made.project, "b", target(classes=names)) == ""
