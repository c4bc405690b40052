"""What git reports about a project's folder, and why it does not report more. The only place that runs git.

git refuses for many reasons, which a bare "no commit" would hide: each has its own message and its own fix here.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from megu.core.errors import MeguError

#: Reasons for a missing commit that are not faults.
NO_REPOSITORY, NO_COMMIT = "no git repository", "a repository without a commit"
_TIMEOUT_S = 20.0
#: These variables name a repository regardless of the folder: set by a git hook, they would make every folder the hook's repository.
_LOCATIONS = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
)


@dataclass(frozen=True)
class Checkout:
    """Which code is checked out in a folder. commit, dirty: None when unknown. why: why there is no commit, without paths; empty with
    one.

    fix: the command that fixes that, empty with a commit. shallow: the clone has the last commits only.
    """

    commit: str | None = None
    dirty: bool | None = None
    why: str = ""
    fix: str = ""
    shallow: bool = False

    @property
    def warning(self) -> str:
        """What a run reports before it begins; empty if its commit can be recorded."""
        return f"no commit of the code is recorded: {self.why} ({self.fix})" if self.why else ""


class Refused(MeguError):
    """git gives no answer about a folder."""


def checkout(root: Path, *, timeout: float = _TIMEOUT_S) -> Checkout:
    """Return the commit that is checked out in ``root``, and whether anything there differs from it. Raises nothing.

    Linked worktrees and submodules work like any repository. timeout: of each question, in seconds.
    """
    try:
        inside, shallow, commit = ask(root, "rev-parse", _INSIDE, _SHALLOW, "HEAD", timeout=timeout).decode().split()
    except Refused as error:
        return Checkout(why=error.what, fix=error.fix)
    if inside != "true":
        return Checkout(
            why="a bare repository, which has no files of a commit", fix=f"git clone {_quoted(root)} FOLDER, and work there"
        )
    try:
        changed: bool | None = bool(ask(root, "status", "--porcelain", "--untracked-files=normal", timeout=timeout).strip())
    except Refused:
        changed = None
    return Checkout(commit, changed, shallow=shallow == "true")


def files_at(root: Path, commit: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return those of the files ``names`` of the folder ``root`` that a commit has. Raises `Refused` when it cannot be read here."""
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):  # from a dossier that anyone may have written
        raise Refused("the recorded commit is not one")
    try:
        kind = ask(root, "cat-file", "-t", commit)
    except Refused as error:
        now = checkout(root)
        if now.why and now.why != NO_COMMIT:
            raise
        short = commit[:12]
        if now.shallow:
            raise Refused(
                f"the commit {short} is not in this shallow clone", f"git -C {_quoted(root)} fetch --unshallow"
            ) from error
        raise Refused(
            f"the commit {short} is not here", f"git -C {_quoted(root)} fetch, or run where the run was made"
        ) from error
    if kind != b"commit\n":
        raise Refused("the recorded commit is not one")
    asked = "".join(f"{commit}:./{name}\n" for name in names)
    return dict(_batch(ask(root, "cat-file", "--batch", stdin=asked.encode()), names))


def _batch(output: bytes, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Parse the output of ``git cat-file --batch``: a line with the size, then the content, for each name."""
    for name in names:
        head, _, output = output.partition(b"\n")
        if head.endswith(b" missing"):
            continue
        size = int(head.rsplit(b" ", 1)[1])
        yield name, output[:size]
        output = output[size + 1 :]


_INSIDE, _SHALLOW = "--is-inside-work-tree", "--is-shallow-repository"


def ask(root: Path, *arguments: str, stdin: bytes = b"", timeout: float = _TIMEOUT_S) -> bytes:
    """Return what git prints for a question about ``root``. Raises `Refused` with the reason; does not take git's own locks."""
    environment = {name: value for name, value in os.environ.items() if name not in _LOCATIONS}
    # Its messages are parsed below, so they must be in English; without the last setting it would wait for a login.
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=environment, input=stdin, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused("git did not answer in time", f"git -C {_quoted(root)} status") from None
    except OSError:
        if not root.is_dir():
            raise Refused("the folder does not exist", f"ls {_quoted(root)}") from None
        raise Refused("git is not installed", "sudo apt-get install git") from None
    if done.returncode:
        raise _reason(root, done.stderr.decode(errors="replace"))
    return done.stdout


def _reason(root: Path, said: str) -> Refused:
    here = _quoted(root)
    if "dubious ownership" in said or "unsafe repository" in said:
        found = re.search(r"config --global --add safe\.directory (.+)", said)
        folder = found.group(1).strip() if found else here
        return Refused(
            "a checkout of another owner, which git refuses to read", f"git config --global --add safe.directory {folder}"
        )
    if "not a git repository (or any" in said:
        return Refused(NO_REPOSITORY, f"git -C {here} init && git -C {here} commit --allow-empty -m start")
    if found := re.search(r"not a git repository: (.+)", said):
        return Refused(
            "a worktree or submodule whose repository was moved", f"git worktree repair, where {found.group(1).strip()} is now"
        )
    if "ambiguous argument 'HEAD'" in said or "Not a valid object name HEAD" in said:
        return Refused(NO_COMMIT, f"git -C {here} commit --allow-empty -m start")
    last = next((line for line in said.splitlines() if line.strip()), "it gave no reason").removeprefix("fatal: ")
    return Refused(f"git failed: {last}", f"git -C {here} status")


def _quoted(path: Path) -> str:
    return quote(str(path))
