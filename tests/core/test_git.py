"""Each reason for which git gives no commit, made for real: its words, its fix, and that the fix mends it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from megu.core.processes import git
from megu.core.processes.git import Checkout, Refused, checkout, files_at

IDENTITY = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without settings, so that `git config --global` is the test's own, and no repository above."""
    for name, value in (IDENTITY | {"HOME": str(tmp_path / "home"), "GIT_CEILING_DIRECTORIES": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home").mkdir()


def run(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits; ``file`` is in both, another in each."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "init", "-q")
    for number in ("one", "two"):
        (folder / "file").write_text(number)
        run(folder, "add", "file")
        run(folder, "commit", "-q", "-m", number)
    return folder


def mend(fix: str, folder: Path) -> None:
    subprocess.run(fix, shell=True, cwd=folder, check=True, capture_output=True)


def test_a_commit_and_whether_anything_differs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = run(repository, "rev-parse", "HEAD")
    assert checkout(repository) == Checkout(head, False)
    (repository / "new.py").write_text("")
    run(repository, "config", "status.showUntrackedFiles", "no")
    assert checkout(repository) == Checkout(head, True)  # whatever a person likes to be shown
    assert files_at(repository, run(repository, "rev-parse", "HEAD~1"), ["file", "none"]) == {"file": b"one"}
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert checkout(repository).commit == head
    assert checkout(repository).warning == ""


def test_a_worktree_and_a_submodule_answer_as_any_repository(repository: Path, tmp_path: Path) -> None:
    head = run(repository, "rev-parse", "HEAD")
    run(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    (tmp_path / "outer").mkdir()
    run(tmp_path / "outer", "init", "-q")
    run(tmp_path / "outer", "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repository), "inner")
    for folder in (tmp_path / "tree", tmp_path / "outer" / "inner"):
        assert checkout(folder) == Checkout(head, False)
        assert files_at(folder, head, ["file"]) == {"file": b"two"}


def empty(repository: Path) -> Path:
    folder = repository.with_name("empty")
    folder.mkdir()
    return folder


def without_commit(repository: Path) -> Path:
    folder = empty(repository)
    run(folder, "init", "-q")
    return folder


def of_another_owner(repository: Path) -> Path:
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534", str(repository)], check=True)
    else:  # git's own switch for its own tests: it takes the folder for another owner's
        os.environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    return repository


def bare(repository: Path) -> Path:
    run(repository.parent, "clone", "-q", "--bare", str(repository), "bare")
    return repository.with_name("bare")


def moved(repository: Path) -> Path:
    run(repository, "worktree", "add", "-q", str(repository.with_name("tree")))
    repository.rename(repository.with_name("elsewhere"))
    return repository.with_name("tree")


def unreadable(repository: Path) -> Path:
    (repository / ".git" / "config").write_text("[nonsense")
    return repository


STATES: dict[Callable[[Path], Path], tuple[str, str, bool]] = {
    empty: ("no git repository", "git -C {} init &&", True),
    without_commit: ("a repository without a commit", "git -C {} commit", True),
    of_another_owner: ("a checkout of another owner", "git config --global --add safe.directory {}", True),
    bare: ("a bare repository", "git clone {} FOLDER", False),
    moved: ("a worktree or submodule whose repository was moved", "git worktree repair", False),
    unreadable: ("git failed: bad config", "git -C {} status", False),
}


@pytest.mark.parametrize("make", STATES, ids=lambda make: make.__name__)
def test_why_there_is_no_commit(make: Callable[[Path], Path], repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "0")
    head = run(repository, "rev-parse", "HEAD")
    folder = make(repository)
    why, fix, mendable = STATES[make]
    found = checkout(folder)
    assert (found.commit, found.dirty) == (None, None)
    assert found.why.startswith(why)
    assert found.fix.startswith(fix.format(shlex.quote(str(folder))))
    assert found.why in found.warning
    assert found.fix in found.warning
    if make not in (bare, without_commit):
        with pytest.raises(Refused, match=why):
            files_at(folder, head, ["file"])
    if mendable and os.environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"] == "0":
        mend(found.fix, folder)
        assert checkout(folder).commit


def test_a_machine_without_git_and_one_that_is_slow(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert checkout(repository).why == "git is not installed"
    assert "apt-get install git" in checkout(repository).fix
    (tools / "git").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tools / "git").chmod(0o755)
    assert checkout(repository, timeout=0.2).why == "git did not answer in time"


def test_a_commit_that_is_not_here(repository: Path, tmp_path: Path) -> None:
    older = run(repository, "rev-parse", "HEAD~1")
    run(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    assert checkout(shallow).shallow
    with pytest.raises(Refused, match="shallow clone") as error:
        files_at(shallow, older, ["file"])
    mend(error.value.fix, shallow)
    assert files_at(shallow, older, ["file"]) == {"file": b"one"}
    with pytest.raises(Refused, match="the commit 000000000000 is not here"):
        files_at(shallow, "0" * 40, ["file"])
    for nonsense in ("--help", "HEAD", run(repository, "rev-parse", "HEAD:file")):
        with pytest.raises(Refused, match="the recorded commit is not one"):
            files_at(repository, nonsense, ["file"])


def test_nothing_else_starts_git() -> None:
    root = Path(git.__file__).parents[3]
    found = [
        path for room in ("megu", "tasks", "flows") for path in (root / room).rglob("*.py") if '["git"' in path.read_text()
    ]
    assert found == [Path(git.__file__)]
