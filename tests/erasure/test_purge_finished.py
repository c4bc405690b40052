"""A purge of a finished run, end to end: planted copies of every kind are found, erased and not found again; every run still verifies."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import Finished, plant_secrets
from promoting import in_child
from purge_fixtures import encoded, forget_places, moved

from megu.cli import main as cli
from megu.core.errors import MeguError
from megu.core.files.exclusion import working
from megu.core.files.store import Ref
from megu.core.project import Project
from megu.data import arrays, pins
from megu.data.sources import providers
from megu.erasure import act, policy, run
from megu.erasure.journal import Journal
from megu.erasure.params import PurgeParams
from megu.erasure.plan import Tracked, dossiers, search_stores
from megu.erasure.plan import _trained as trained_on_them
from megu.erasure.search.patterns import SearchPatterns
from megu.erasure.search.scan import Scanner
from megu.lineage import indexing
from megu.lineage.index import Index
from megu.lineage.keys import Keys
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import ERASED, NAME, RESIDUAL, RETAINED
from megu.lineage.verify import run as lineage
from megu.tracking import client, orphans, uri

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]

AT_ONCE = PurgeParams(models_days=0)


@pytest.fixture
def project(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    plant_secrets(monkeypatch)  # the passphrase of the key
    yield moved(finished.project, tmp_path / "own", finished.whole)
    forget_places()


def forgotten(project: Project) -> SearchPatterns:
    """The training and test images of the class, before they are gone."""
    dataset = arrays.load(project.data("slice"))
    at = dataset.classes.index("Sneaker")
    parts = [dataset.train, dataset.test]
    images = np.concatenate([np.asarray(part.images[part.labels == at]) for part in parts])
    ids = np.concatenate([np.asarray(part.ids[part.labels == at]) for part in parts])
    return SearchPatterns(images, ids)


def hits(project: Project, patterns: SearchPatterns) -> dict[str, str]:
    """Path -> surface of every file that has something of them."""
    found, _ = search_stores(project, [Scanner(patterns)], Tracked())
    return {project.relative(path): surface for path, (surface, _) in found.items()}


def plant(project: Project, patterns: SearchPatterns) -> dict[str, str]:
    """A copy of every kind in every place; path -> surface."""
    image, identifier = patterns.images[3], patterns.ids[4].decode()
    page = '<img src="data:image/webp;base64,' + base64.b64encode(encoded(image, "WEBP")).decode() + '">'
    files = {
        "backup/files/md5/ab/cdef": (patterns.images.tobytes(), places.REMOTES),
        ".megu/store/aa/orphan.safetensors": (b"head" + image.tobytes(), places.STORE),
        ".megu/results/split-old": (json.dumps({"forget.ids": [identifier]}).encode(), places.RESULTS),
        ".megu/checkpoints/shadow-1.safetensors": (image.tobytes(), places.CHECKPOINTS),
        ".megu/answers/abc.jsonl": (
            json.dumps({"images": [base64.b64encode(encoded(image, side=224)).decode()]}).encode(),
            places.ANSWERS,
        ),
        ".megu/mlartifacts/gone/artifacts/thumbnail.jpg": (encoded(image, "JPEG", 96), places.ARTIFACTS),
        ".megu/purge/images-0.npy": (image.tobytes(), places.LEFTOVERS),
        "requests/forget.json": (json.dumps({"forget": {"ids": [identifier]}}).encode(), places.LEFTOVERS),
        ".megu/tmp/left.png": (encoded(image), places.LEFTOVERS),
        "results/old.html": (page.encode(), places.REPORTS),
        "photos/mine.png": (encoded(image), places.OTHERS),
    }
    for name, (content, _) in files.items():
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_bytes(content)
    (project.root / ".dvc" / "config").write_text(
        "['remote \"near\"']\n    url = ../backup\n['remote \"far\"']\n    url = s3://b/d\n"
    )
    database = project.home / "prefect" / "prefect.db"
    database.parent.mkdir(exist_ok=True)
    with sqlite3.connect(database) as opened:
        opened.execute("CREATE TABLE IF NOT EXISTS flow_run (parameters JSON)")
        opened.execute("INSERT INTO flow_run VALUES (?)", (json.dumps({"settings": [f"forget.ids=[{identifier}]"]}),))
    return {name: surface for name, (_, surface) in files.items()} | {".megu/prefect/prefect.db": places.PREFECT}


def verdicts(outcome: run.Outcome) -> dict[str, str]:
    return {surface.name: surface.verdict for surface in outcome.surfaces}


def is_purged_again(project: Project, purged: str, old: bytes) -> None:
    """A copy that comes back, as in a remote that was away, is known by what was signed."""
    back = project.root / "backup" / "files" / "md5" / "ab" / "cdef"
    back.parent.mkdir(parents=True, exist_ok=True)
    back.write_bytes(old)
    second = run.apply(project, [purged], AT_ONCE)
    assert [action.what for action in second.plan.actions] == ["backup/files/md5/ab/cdef"]
    assert not back.exists()
    shutil.rmtree(project.root / "backup")
    away = lineage.verify(purged, project, sealed=True)
    assert away.exit_code == 2
    assert [check.name for check in away.checks if check.holds is None] == ["dvc remotes"]
    assert verdicts(run.dry_run(project, [purged], AT_ONCE))[places.REMOTES] == RESIDUAL
    (project.root / "backup").mkdir()


def is_not_believed_of_anybody(project: Project, purged: str) -> None:
    """A purge that nobody trusted signed accounts for nothing."""
    document = project.dossiers / purged / NAME
    document.write_bytes(document.read_bytes().replace(b'"signature":"', b'"signature":"00')[:-4] + b'"}')
    for path in project.dossiers.glob("*/purge*.json"):
        path.unlink() if path != document else None
    refused = lineage.verify(purged, project, sealed=True)
    assert refused.exit_code == 1
    assert any(check.name == "purge" and check.holds is False for check in refused.checks)


def is_indexed_again(project: Project) -> None:
    """The index is made again of what is here and what was signed to be gone."""
    before_index = Index(project.index).rows()
    shutil.rmtree(project.index)
    assert indexing.rebuild(project) == (2, [])
    assert Index(project.index).rows() == before_index


def is_not_excused_by_it(project: Project, purged: str, outcome: run.Outcome, stored: dict[str, bytes]) -> None:
    """What was not erased by it may still not be missing, and what was erased may not come back. stored: path -> content, before the purge."""
    unlearned = json.loads((project.dossiers / purged / "dossier.json").read_bytes())["models"]["unlearned"]
    weights = project.store.path(Ref("safetensors", unlearned, 0))
    content = weights.read_bytes()
    weights.unlink()
    assert lineage.verify(purged, project, sealed=True).exit_code == 2
    weights.write_bytes(content)
    assert outcome.sealed is not None
    erased = [entry.what for entry in outcome.sealed.purge.erased if entry.what in stored]
    assert len(erased) > 1
    for what in erased:
        back = project.root / what
        back.parent.mkdir(exist_ok=True)
        back.write_bytes(stored[what])
        refused = lineage.verify(purged, project, sealed=True)
        assert refused.exit_code == 1
        assert f"{what} was erased and is back" in {check.name: check.says for check in refused.checks}["purge"]
        back.unlink()


def test_planted_copies_are_found_erased_and_not_found_again_and_every_run_still_verifies(
    project: Project, finished: Finished
) -> None:
    patterns = forgotten(project)
    planted = plant(project, patterns)
    before = hits(project, patterns)
    assert planted.items() <= before.items()
    assert {places.DATA, places.CACHE, places.STORE, places.ARTIFACTS, places.REPORTS} <= set(before.values())
    pinned = pins.read(project.root)["slice"]
    old = (project.data("slice") / "train_images.npy").read_bytes()

    plan = run.dry_run(project, [finished.newer.mlflow_run_id], AT_ONCE)
    assert hits(project, patterns) == before, "a dry run changes nothing"
    assert verdicts(plan)[places.OTHERS] == RESIDUAL
    stored = {project.relative(path): path.read_bytes() for path in (project.home / "store").rglob("*") if path.is_file()}

    outcome = run.apply(project, [finished.newer.mlflow_run_id], AT_ONCE)
    assert list(hits(project, patterns)) == ["photos/mine.png"]
    found = verdicts(outcome)
    assert found.pop(places.OTHERS) == RESIDUAL
    assert found.pop(places.REMOTES) == RESIDUAL  # the one far away
    kept = {places.STORE, places.DOSSIERS, places.SPLITS}
    assert found == {name: RETAINED if name in kept else ERASED for name in found}
    assert outcome.sealed is not None
    assert not Journal.of(project).open
    now = pins.read(project.root)["slice"]
    assert now != pinned
    assert pins.hash_dir(project.data("slice")) == now
    with sqlite3.connect(project.home / "prefect" / "prefect.db") as opened:
        (parameters,) = opened.execute("SELECT parameters FROM flow_run").fetchone()
    assert json.loads(parameters)["settings"][0].startswith("forget.ids=[")

    purged = finished.newer.mlflow_run_id
    assert lineage.verify(purged, project).exit_code == 2
    sealed = lineage.verify(purged, project, sealed=True, replay=True)
    assert sealed.exit_code == 0, [check for check in sealed.checks if not check.holds]
    other = lineage.verify(finished.older.mlflow_run_id, project)
    assert other.exit_code == 0, [check for check in other.checks if not check.holds]
    assert [event.kind for event in project.ledger.events(purged)] == ["purge.done"]
    again = run.apply(project, [purged], AT_ONCE)
    assert (again.plan.actions, again.sealed) == ([], None), "nothing is left to erase"
    assert verdicts(again)[places.OTHERS] == RESIDUAL, "what was left is left, though there is nothing to search by"

    is_purged_again(project, purged, old)
    is_indexed_again(project)

    is_not_excused_by_it(project, purged, outcome, stored)
    is_not_believed_of_anybody(project, purged)


def test_a_purge_that_is_killed_anywhere_ends_as_one_that_is_not(
    project: Project, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = finished.newer.mlflow_run_id
    straight = moved(project, tmp_path / "straight")
    expected = run.apply(straight, [run_id], AT_ONCE)
    patterns = forgotten(project)

    def dying(real: Any, at: int) -> Any:
        steps = 0

        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return step

    def killed(where: Any, name: str, at: int, *ignored: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(where, name, dying(getattr(where, name), at))
            assert in_child(lambda: run.apply(project, [run_id], AT_ONCE, ignored=ignored)) == -signal.SIGKILL
        assert Journal.of(project).open

    killed(act, "remove", 5)
    away = client(project.home).create_run("1", tags={orphans.PROCESS_TAG: "elsewhere 1 0.0"}).info.run_id
    with pytest.raises(MeguError, match=f"the run {away} on elsewhere has been under way"):
        run.apply(project, [], AT_ONCE)
    killed(act, "remove", 20, away)
    # What was ignored once is ignored to the end, and the one document says so.
    killed(run, "publish", 1)
    killed(Journal, "end", 1)
    with pytest.raises(MeguError, match="a purge was stopped half-way"):
        providers.fetch(project.root, "slice")
    assert run.dry_run(project, [], AT_ONCE).resumed
    outcome = run.apply(project, [], AT_ONCE)
    assert outcome.resumed
    assert not Journal.of(project).root.exists()
    assert [path.name for path in sorted((project.dossiers / run_id).glob("purge*"))] == [NAME], "one verdict, signed once"
    assert len(project.ledger.events(run_id, "purge.done")) == 1
    assert hits(project, patterns) == {}
    assert outcome.sealed is not None
    assert expected.sealed is not None
    assert outcome.sealed.purge.policy["ignored_runs"] == [away]
    assert verdicts(outcome) == verdicts(expected)
    assert [entry.what for entry in outcome.sealed.purge.erased] == [entry.what for entry in expected.sealed.purge.erased]
    assert outcome.sealed.purge.data == expected.sealed.purge.data
    assert lineage.verify(run_id, project, sealed=True).exit_code == 0


def test_models_of_a_run_that_retained_the_samples_knew_them(project: Project) -> None:
    every = dossiers(project)
    made = policy.made([], [(run.dossier.data.dvc_hash, run.records) for run in every])
    weights = {
        ref.sha256
        for run in every
        for record in run.records
        if record.label in ("unlearn", "reference")
        for ref in record.refs.values()
    }

    def knew(*runs: bool) -> set[str]:
        known = {run.dossier.run.mlflow_run_id: retained for run, retained in zip(every, runs, strict=True)}
        return trained_on_them(made, every, policy.Seen(frozenset(), frozenset(), frozenset(), known)) & weights

    assert len(weights) == 3  # the retrain is shared
    assert knew(False, False) == set()
    assert knew(True, True) == weights


def test_superseded_models_stay_as_long_as_policy_says(project: Project, finished: Finished) -> None:
    plan = run.dry_run(project, [finished.newer.mlflow_run_id], PurgeParams(models_days=30))
    kept = [entry for entry in plan.plan.retained if entry.surface == places.VERSIONS]
    assert kept
    assert all(entry.until for entry in kept)
    assert not any(action.surface == places.VERSIONS for action in plan.plan.actions)


def test_the_command_says_what_it_would_do_and_needs_a_key(
    project: Project, finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    monkeypatch.setattr("sys.argv", ["megu", "purge", finished.newer.mlflow_run_id, "--json"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert leaving.value.code == 0
    assert (said["applied"], len(said["surfaces"])) == (False, len(places.SURFACES))
    Keys(project.keys).private.unlink()
    with pytest.raises(MeguError, match="no key to sign with"):
        run.apply(project, [finished.newer.mlflow_run_id], AT_ONCE)


def test_a_run_whose_process_was_killed_is_marked_and_a_live_one_is_left(project: Project) -> None:
    connected = client(project.home)
    assert uri(project.home).endswith("/own/.megu/mlflow.db")
    live = connected.create_run("1", tags={orphans.PROCESS_TAG: orphans.this_process(project.home)}).info.run_id
    machine, _, began, _ = orphans.this_process(project.home).split(" ")
    gone = connected.create_run("1", tags={orphans.PROCESS_TAG: f"{machine} 4194303 {began}"}).info.run_id
    away = connected.create_run("1", tags={orphans.PROCESS_TAG: f"elsewhere 1 {began}"}).info.run_id
    (project.home / "live").mkdir(exist_ok=True)
    (project.home / "live" / "0123").touch()  # nobody holds it: a container that is no more
    contained = connected.create_run("1", tags={orphans.PROCESS_TAG: f"elsewhere 1 {began} 0123"}).info.run_id
    assert sorted(orphans.close(connected, project.home)) == sorted([gone, contained])
    assert connected.get_run(gone).info.status == "KILLED"
    assert "ended without a word" in connected.get_run(gone).data.tags[orphans.ORPHAN_TAG]
    assert {connected.get_run(entry).info.status for entry in (live, away)} == {"RUNNING"}
    with pytest.raises(MeguError, match="has been under way") as refused:
        run.apply(project, [], AT_ONCE, ignored=[live])
    assert f"--ignore-run {away}" in refused.value.fix
    assert "on elsewhere has been under way since" in refused.value.what
    assert run._refuse_live_runs(connected, project.home, [live, away, gone]) == sorted([live, away])
    with working(project), pytest.raises(MeguError, match="a run is under way in this project"):
        run.apply(project, [], AT_ONCE)
