"""What a purge may remove from DVC's cache and remotes, and what something else refers to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reading
import yaml
from dossier_fixtures import RUN, SIGNING
from lineage_fixtures import git
from small_projects import Small, make, md5, written

from megu.core.errors import MeguError
from megu.core.files.store import sha256_file
from megu.erasure import run
from megu.erasure.params import PurgeParams
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import CAME_BACK, RESIDUAL, Entry, sealed

AT_ONCE = PurgeParams(models_days=0)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return make(tmp_path, sets=1, link="symlink", committed=False)


def cached(small: Small, file: str) -> Path:
    return (small.project.data("a") / file).resolve()


def left(outcome: run.Outcome) -> dict[str, str]:
    """File -> why, of what is left in the cache and the remotes."""
    entries = outcome.sealed.purge.residual if outcome.sealed else outcome.plan.residual
    return {Path(entry.what).name: entry.why for entry in entries if entry.surface in (places.CACHE, places.REMOTES)}


def pinned_elsewhere(small: Small) -> None:
    """The same version under another name, which is pinned and not here."""
    pinned = yaml.safe_load((small.project.root / "data.dvc").read_text())
    pinned["outs"].append({**pinned["outs"][0], "path": "data/z"})
    (small.project.root / "data.dvc").write_text(yaml.safe_dump(pinned))


def tracked_by_the_user(small: Small) -> None:
    out = {"outs": [{"md5": md5(cached(small, "train_images.npy")), "hash": "md5", "path": "copy.npy"}]}
    written(small.project.root / "notes" / "copy.npy.dvc", yaml.safe_dump(out))


def committed_at_head(small: Small) -> None:
    root = small.project.root
    pinned_elsewhere(small)
    (root / ".gitignore").write_text("/.megu/\n/data/\n/results/\n.dvc/cache\n")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "two"]):
        git(root, *arguments)
    pinned = yaml.safe_load((root / "data.dvc").read_text())
    (root / "data.dvc").write_text(yaml.safe_dump({"outs": pinned["outs"][:1]}))


def linked_by_the_user(small: Small) -> None:
    (small.project.root / "mine.npy").symlink_to(cached(small, "train_images.npy"))


def in_a_pipeline(small: Small) -> None:
    dep = {"path": "elsewhere.npy", "hash": "md5", "md5": md5(cached(small, "train_images.npy"))}
    written(small.project.root / "dvc.lock", yaml.safe_dump({"stages": {"mine": {"cmd": "x", "deps": [dep]}}}))


@pytest.mark.parametrize(
    ("refer", "by"),
    [
        (pinned_elsewhere, "data.dvc"),
        (tracked_by_the_user, "notes/copy.npy.dvc"),
        (committed_at_head, "data.dvc at git's HEAD"),
        (linked_by_the_user, "the link mine.npy"),
        (in_a_pipeline, "dvc.lock"),
    ],
)
def test_what_something_else_refers_to_stays_and_is_named(small: Small, refer: Any, by: str) -> None:
    images = cached(small, "train_images.npy")
    content = images.read_bytes()
    refer(small)
    said = left(run.apply(small.project, [RUN], AT_ONCE))
    assert images.read_bytes() == content
    assert f"{by} refers to it: take it away there, and purge again" in said[images.name]
    assert left(run.dry_run(small.project, [RUN], AT_ONCE)).keys() == said.keys(), "a later purge says the same"


def test_what_was_left_goes_when_nothing_refers_to_it_any_more(small: Small) -> None:
    images = cached(small, "train_images.npy")
    linked_by_the_user(small)
    assert images.name in left(run.apply(small.project, [RUN], AT_ONCE))
    (small.project.root / "mine.npy").unlink()
    assert left(run.apply(small.project, [RUN], AT_ONCE)) == {}
    assert not images.exists()


def test_nothing_is_removed_from_a_store_of_others_until_the_user_says_that_there_are_none(tmp_path: Path) -> None:
    small = make(tmp_path, sets=1, link="symlink", place="outside", remote="outside")
    held = [cached(small, f"train_{kind}.npy") for kind in ("images", "ids", "names")]
    held += [tmp_path / "remote" / path.relative_to(tmp_path / "cache") for path in held]
    labels = cached(small, "train_labels.npy")
    first = run.apply(small.project, [RUN], AT_ONCE)
    assert all(path.is_file() for path in [*held, labels])
    assert left(first).keys() == {path.name for path in held}
    assert all("purge again with purge.shared_stores=true" in why for why in left(first).values())
    again = run.apply(small.project, [RUN], AT_ONCE)
    assert again.plan.actions == []
    assert left(again).keys() == left(first).keys()
    second = run.apply(small.project, [RUN], PurgeParams(models_days=0, shared_stores=True))
    assert left(second) == {}
    assert not any(path.exists() for path in held)


def test_a_cache_that_says_that_it_is_shared_is(small: Small) -> None:
    written(small.project.root / ".dvc" / "config", "[cache]\n    shared = group\n    type = symlink\n")
    said = left(run.apply(small.project, [RUN], AT_ONCE))
    assert said
    assert all("other projects may use it (cache.shared is set)" in why for why in said.values())


def test_a_data_set_that_is_a_link_is_named_and_what_it_leads_to_is_left(small: Small, tmp_path: Path) -> None:
    project, away = small.project, tmp_path / "disk" / "a"
    shutil.copytree(project.data("a"), away)
    shutil.rmtree(project.data("a"))
    project.data("a").symlink_to(away)
    before = {path.name: path.read_bytes() for path in away.iterdir()}
    for _ in range(2):
        outcome = run.apply(project, [RUN], AT_ONCE)
        found = {Path(entry.what).name for entry in outcome.plan.residual if entry.surface == places.DATA}
        assert found == {"train_images.npy", "train_ids.npy"}
        assert {path.name: path.read_bytes() for path in away.iterdir()} == before
    assert not project.data("a").is_symlink()


def test_what_systems_leave_in_a_data_sets_folder_stays_and_what_a_person_put_there_is_refused(small: Small) -> None:
    folder = small.project.data("a")
    written(folder / ".DS_Store", "a view")
    written(folder / "read me.txt", "mine")
    with pytest.raises(MeguError, match=r"read me\.txt"):
        run.apply(small.project, [RUN], AT_ONCE)
    assert (folder / "read me.txt").read_text() == "mine"
    (folder / "read me.txt").unlink()
    run.apply(small.project, [RUN], AT_ONCE)
    assert (folder / ".DS_Store").read_text() == "a view"


def test_megus_own_folders_may_be_on_another_disk(small: Small, tmp_path: Path) -> None:
    project = small.project
    for folder in (project.home / "store", project.root / "results"):
        away = tmp_path / "disk" / folder.name
        shutil.copytree(folder, away)
        shutil.rmtree(folder)
        folder.symlink_to(away)
    held = [path for path in small.may_go if path.is_relative_to(project.home / "store")]
    assert len(held) == 6
    run.apply(project, [RUN], AT_ONCE)
    assert not any(path.exists() for path in held)
    assert not [path for path in reading.files([tmp_path / "disk"]) if reading.readable(path, small.images, small.ids)]


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\nouts:\n", "outs: [\n"])
def test_a_file_of_dvcs_that_cannot_be_read_may_name_what_must_stay(small: Small, content: str) -> None:
    written(small.project.root / "more.dvc", content)
    with pytest.raises(MeguError, match=r"more\.dvc cannot be read"):
        run.dry_run(small.project, [RUN], AT_ONCE)


def test_a_git_that_does_not_answer_is_no_git_without_pins(small: Small) -> None:
    written(small.project.root / ".git" / "HEAD", "nonsense")
    with pytest.raises(MeguError, match="git does not say what is committed"):
        run.dry_run(small.project, [RUN], AT_ONCE)


def test_what_is_to_be_removed_from_a_remote_elsewhere_is_named_object_by_object(small: Small) -> None:
    written(small.project.root / ".dvc" / "config", "['remote \"far\"']\n    url = s3://bucket/data\n")
    images = cached(small, "train_images.npy")
    for _ in range(2):
        said = next(entry.why for entry in run.apply(small.project, [RUN], AT_ONCE).plan.residual if entry.what == "far")
        assert f"files/md5/{images.parent.name}/{images.name}" in said
        assert "gc" not in said, "it would remove what other branches and projects have there"


def test_equal_labels_that_an_older_megu_took_for_copies_are_none(tmp_path: Path) -> None:
    """Its documents name arrays of labels among what was erased, and "b" has the same."""
    small = make(tmp_path, sets=2, link="copy")
    labels = sha256_file(small.project.data("a") / "train_labels.npy")
    first = run.apply(small.project, [RUN], AT_ONCE)
    assert first.sealed is not None
    path = small.project.dossiers / RUN / "purge.json"
    old = first.sealed.purge
    shelf = next(small.project.root.glob(f".dvc/cache/files/md5/*/{md5(small.project.data('b') / 'train_labels.npy')[2:]}"))
    entries = [
        Entry(surface=places.DATA, what="data/a/train_labels.npy", sha256=labels, why="of the version", until=None),
        Entry(
            surface=places.CACHE, what=small.project.relative(shelf), sha256=labels, why="of the version of a that", until=None
        ),
    ]
    copies = [Entry(surface=places.DATA, what="data/b/train_labels.npy", sha256=labels, why=CAME_BACK, until=None)]
    path.write_bytes(sealed(replace(old, erased=[*old.erased, *entries], residual=copies), SIGNING).to_bytes())
    again = run.apply(small.project, [RUN], AT_ONCE)
    assert again.plan.actions == []
    assert not [surface for surface in again.surfaces if surface.verdict == RESIDUAL and surface.name == places.DATA]
    assert shelf.is_file()
