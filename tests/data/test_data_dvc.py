"""The split stage through the real DVC, on a small data set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from megu.core.errors import MeguError
from megu.data import arrays, dvc, pins, splits

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = "seed: 0\ndata: {{name: toy}}\nforget: {{scenario: class, classes: [{}]}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with the real dvc.yaml and a pinned data set of 12 + 6 images."""
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(REPOSITORY / name, root / name)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    part = (images, np.arange(12) % 3)
    path = root / "data" / "toy"
    arrays.save(path, name="toy", classes=("Bag", "Coat", "Shirt"), train=part, test=(255 - images[:6], part[1][:6]))
    pins.write(root, "toy", pins.hash_dir(path))
    (root / "params.yaml").write_text(PARAMS.format("Bag"))
    return root


def tracked(root: Path) -> list[str]:
    """What git would add."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return sorted(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split())


def test_clutter_in_its_folders_changes_nothing(project: Path) -> None:
    (project / ".dvcignore").write_text(".git/\n.megu/\n")  # a project of before
    for name in (".DS_Store", "Thumbs.db", "@eaDir/x"):
        path = project / "data" / "toy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("left by a system")
    assert dvc.repro(project, "split").current
    lock = (project / "dvc.lock").read_text()
    assert pins.read(project)["toy"].md5 in lock
    shutil.rmtree(project / "data" / "toy" / "@eaDir")
    (project / "splits" / ".DS_Store").write_text("x")
    assert dvc.locked_outs(project, "split").current


def test_the_lock_of_a_killed_dvc_is_waited_for_until_the_process_is_gone(project: Path) -> None:
    """As after a kill of a run: its DVC is a zombie for a moment, by which DVC itself takes the lock for held."""
    dvc.repro(project, "split")
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    killed.kill()
    held = {"read": {}, "write": {str(project / "splits"): {"pid": killed.pid, "cmd": "dvc repro split"}}}
    (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    reaped = threading.Timer(0.5, killed.wait)
    reaped.start()
    assert dvc.repro(project, "split", force=True).current
    reaped.join()


@pytest.mark.parametrize("left", ["", '{"write": {}, "re'])
def test_a_list_of_locks_that_a_kill_cut_short_does_not_stop_every_run_after_it(project: Path, left: str) -> None:
    dvc.repro(project, "split")
    (project / ".dvc" / "tmp" / "rwlock").write_text(left)
    assert dvc.repro(project, "split", force=True).current


def test_a_lock_that_is_held_is_said(project: Path) -> None:
    dvc.repro(project, "split")
    held = {"read": {}, "write": {str(project / "splits"): {"pid": os.getpid(), "cmd": "dvc repro split"}}}
    (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    with pytest.raises(MeguError, match=r"splits' is busy, it is being blocked by"):
        dvc.repro(project, "split", force=True)


def test_the_split_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dvc.locked_outs(project, "split").why == "stage split has not run yet"
    made = dvc.repro(project, "split")
    assert made.current
    assert splits.load_split(project / "splits").classes == (0,)
    dvc.run(project, "commit", "--force", "data.dvc")
    assert dvc.status(project) == {}
    # DVC's own files and nothing else: no noise in git.
    assert tracked(project) == sorted(
        [".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "data.dvc", "dvc.lock", "dvc.yaml", "params.yaml"]
    )

    # Warm: no DVC process, in a moment.
    with monkeypatch.context() as patch:
        patch.setattr(dvc, "run", None)
        start = time.perf_counter()
        assert dvc.repro(project, "split") == made
        assert time.perf_counter() - start < 0.1

    # Another class.
    (project / "params.yaml").write_text(PARAMS.format("Coat"))
    assert "the parameter forget has changed" in dvc.locked_outs(project, "split").why
    assert dvc.repro(project, "split").outs != made.outs
    assert splits.load_split(project / "splits").classes == (1,)

    # A wrong class: our own message, and no split that does not fit the parameters.
    (project / "params.yaml").write_text(PARAMS.format("Goat"))
    with pytest.raises(MeguError, match="no class 'Goat': did you mean 'Coat'"):
        dvc.repro(project, "split")
    assert not (project / "splits").exists()
    (project / "params.yaml").write_text(PARAMS.format("Coat"))
    assert dvc.repro(project, "split").current

    # A damaged split is made again.
    np.save(project / "splits" / "forget.npy", np.arange(2))
    assert dvc.locked_outs(project, "split").why == "splits does not match dvc.lock"
    assert dvc.repro(project, "split").current
    assert splits.load_split(project / "splits").forget.tolist() == [1, 4, 7, 10]


def test_what_makes_a_locked_stage_stale(project: Path) -> None:
    dvc.repro(project, "split")
    lock = (project / "dvc.lock").read_text()
    with (project / "data" / "toy" / "meta.json").open("a") as file:
        file.write("\n")
    assert dvc.locked_outs(project, "split").why == "data/toy does not match dvc.lock"
    (project / "dvc.lock").write_text(lock.replace("megu.data.splits", "megu.old"))
    assert dvc.locked_outs(project, "split").why == "its command has changed"
    (project / "dvc.lock").write_text(lock.replace("data/toy", "data/other"))
    assert dvc.locked_outs(project, "split").why == "its deps have changed"
    shutil.rmtree(project / "splits")
    (project / "dvc.lock").write_text(lock)
    assert not dvc.locked_outs(project, "split")


def test_wrong_projects(project: Path) -> None:
    with pytest.raises(MeguError, match="no stage 'other'"):
        dvc.locked_outs(project, "other")
    (project / "params.yaml").write_text("seed: 0\nforget: {}\n")
    with pytest.raises(MeguError, match="has no data"):
        dvc.locked_outs(project, "split")
    (project / "params.yaml").write_text("seed: 0\nforget: {}\ndata: {}\n")
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {split: {cmd: python -m megu.data.splits}}\n")
    with pytest.raises(MeguError, match=r"no data\.name"):
        dvc.locked_outs(project, "split")
    (project / "params.yaml").write_text("[")
    with pytest.raises(MeguError, match=r"params\.yaml cannot be read"):
        dvc.locked_outs(project, "split")


def test_dvcs_own_errors_have_one_line(project: Path) -> None:
    dvc.init(project)
    with pytest.raises(MeguError, match="`dvc pull` failed: ") as raised:
        dvc.run(project, "pull")
    assert "\n" not in str(raised.value)


def test_remotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    dvc.init(tmp_path)
    assert not dvc.has_remote(tmp_path)
    (tmp_path / ".dvc" / "config.local").write_text("['remote \"team\"']\n    url = /somewhere/100%\n")
    assert dvc.has_remote(tmp_path)


def test_the_repositorys_lock_fits_its_files(fashion_mnist_project: Path, tmp_path: Path) -> None:
    """From the committed parameters and the pinned data set come exactly the split that dvc.lock has."""
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    shutil.copytree(fashion_mnist_project / "data" / "fashion-mnist", tmp_path / "data" / "fashion-mnist")
    splits.main(tmp_path)
    assert dvc.locked_outs(tmp_path, "split").why == ""
