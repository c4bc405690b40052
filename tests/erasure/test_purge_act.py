"""Carrying out a plan whose journal is there, whatever has happened to the data set meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dossier_fixtures import RUN
from small_projects import Small, make

from megu.core.errors import MeguError
from megu.data import pins
from megu.erasure import act, run
from megu.erasure.journal import Journal
from megu.erasure.params import PurgeParams


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A purge that was stopped when the new version had taken its place."""
    small = make(tmp_path, sets=1)
    shutil.copytree(small.project.data("a"), tmp_path / "old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(act, "remove", stop)
        with pytest.raises(KeyboardInterrupt):
            run.apply(small.project, [RUN], PurgeParams(models_days=0))
    assert Journal.of(small.project).open
    return small


def test_an_old_version_that_came_back_meanwhile_is_erased_again(stopped: Small, tmp_path: Path) -> None:
    folder = stopped.project.data("a")
    new = pins.hash_dir(folder)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    assert run.apply(stopped.project, [], PurgeParams()).resumed
    assert pins.hash_dir(folder) == new == pins.read(stopped.project.root)["a"]


def test_what_is_neither_version_is_kept_and_nobody_is_told_to_delete_it(stopped: Small, tmp_path: Path) -> None:
    mine = stopped.project.data("a") / "train_labels.npy"
    new = mine.read_bytes()
    mine.write_bytes((tmp_path / "old" / "test_labels.npy").read_bytes())
    with pytest.raises(MeguError, match="neither its old version nor its new one") as refused:
        run.apply(stopped.project, [], PurgeParams())
    assert "keep a copy of what is there elsewhere" in refused.value.fix
    assert mine.read_bytes() != new
    mine.write_bytes(new)
    assert run.apply(stopped.project, [], PurgeParams()).resumed


def test_what_a_person_put_there_meanwhile_is_kept(stopped: Small, tmp_path: Path) -> None:
    folder = stopped.project.data("a")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    (folder / "mine.txt").write_text("mine")
    assert run.apply(stopped.project, [], PurgeParams()).resumed
    assert (folder / "mine.txt").read_text() == "mine"
