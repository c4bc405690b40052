"""What a run was run on, with and without git."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from megu.tracking.environment import PACKAGES, environment, package_version


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_it_is_all(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "start")
    facts = environment(tmp_path)
    assert (facts["git.commit"], facts["git.dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), "false")
    (tmp_path / "new.py").write_text("")
    assert environment(tmp_path)["git.dirty"] == "true"


def test_a_folder_without_a_commit_and_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    facts = environment(tmp_path)
    assert [facts[f"git.{name}"] for name in ("commit", "dirty", "why")] == ["unknown", "unknown", "no git repository"]
    monkeypatch.setenv("PATH", "")
    assert environment(tmp_path)["git.commit"] == "unknown"
    assert environment(tmp_path)["git.why"] == "git is not installed"


def test_versions_and_the_machine_are_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = environment(tmp_path)
    assert {f"version.{name}" for name in PACKAGES} <= set(facts)
    assert facts["version.torch"][0].isdigit()
    assert facts["python"] == platform.python_version()
    assert (facts["threads"], int(facts["cpus"]) > 0) == ("3", True)
    assert all(isinstance(value, str) and value for value in facts.values())
    assert package_version("no-such-package-at-all") == "absent"
