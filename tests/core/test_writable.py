"""A project that cannot be written, or whose disk is full: every command that writes says so in one line before it computes anything,
and leaves nothing half-written; what only reads goes on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_disks import UNSHARED, on_a_small_disk, read_only

from megu.core.errors import MeguError
from megu.core.files.writable import explained, refuse_unwritable

needs_mounts = pytest.mark.skipif(not UNSHARED, reason="needs mounts of its own, which this machine does not allow")

#: Runs the commands that it is given, one a line, in one process: [command, exit code, what was said on standard error].
PROGRAM = """
import contextlib, io, json, sys
from megu.cli.main import app, guarded
for line in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = guarded(lambda: app(line.split(), standalone_mode=False))
    print(json.dumps([line, code, said.getvalue()]))
"""
WRITING = [
    "init --yes",
    "run",
    "label",
    "bench bench.yaml",
    "data fetch fashion-mnist",
    "data add . --name mine",
    "keys create",
    "lineage index",
    "request add --class Bag --basis contract --requester internal",
    "request take",
    "request withdraw R",
    "request serve",
    "process",
    "promote",
    "rollback",
    "purge --apply",
    "up",
]
READING = ["status", "request list", "methods", "params", "data status", "models"]


def answers(done: subprocess.CompletedProcess[str]) -> list[tuple[str, int, str]]:
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert found, done
    return [(command, code, said) for command, code, said in found]


@needs_mounts
def test_a_read_only_project(project, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bench.yaml").write_text(
        "name: b\ntargets: [{forget: {classes: [Bag]}}]\nmethods: [{name: a, method: finetune}]\n"
    )
    before = sorted(tmp_path.rglob("*"))
    found = answers(read_only(tmp_path, [sys.executable, "-c", PROGRAM, *WRITING, *READING]))
    assert [command for command, _, _ in found] == [*WRITING, *READING]
    for command, code, said in found[: len(WRITING)]:
        assert (code, said.count("\n")) == (2, 1), (command, said)
        assert f"{tmp_path} cannot be written: its file system is read-only" in said, command
    for command, code, said in found[len(WRITING) :]:
        assert code == (1 if command == "data status" else 0), (command, said)
        assert "read-only" not in said
    assert sorted(tmp_path.rglob("*")) == before


@needs_mounts
@pytest.mark.parametrize(("size", "refused_at_once"), [("40k", True), ("400k", False)])
def test_a_full_disk(tmp_path: Path, size: str, refused_at_once: bool) -> None:
    """Of the larger one, enough is free to begin with, and not for what is added."""
    disk, images = tmp_path / "disk", tmp_path / "images"
    disk.mkdir()
    for number in range(40):
        path = images / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    commands = [
        f"data add {images} --name mine",
        *(["request add --class Bag --basis contract --requester internal", "keys create"] * refused_at_once),
    ]
    command = ["sh", "-c", 'echo "seed: 0" > params.yaml; exec "$@"', "sh", sys.executable, "-c", PROGRAM, *commands]
    done = on_a_small_disk(disk, size, command, after="find . -type f")
    for name, code, said in answers(done):
        assert (code, said.count("\n")) == (2, 1), (name, said)
        assert said.startswith("megu: the disk is full: "), name
    left = [line for line in done.stdout.splitlines() if line.startswith("./") and not line.endswith(".lock")]
    assert left == ["./params.yaml"]


def test_a_folder_of_somebody_else_s(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    program = f"""
import os
from pathlib import Path
from megu.core.files.writable import refuse_unwritable
if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
refuse_unwritable(Path({str(Path("/") if os.geteuid() == 0 else tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert "cannot be written (Permission denied): run as its owner" in done.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there_is_as_good_as_the_one_it_would_be_in(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new" / "deep", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(MeguError, match="is a file where a folder is needed: mv "):
        refuse_unwritable(tmp_path / "file" / "deep")
    with pytest.raises(MeguError, match="is a file where a folder is needed: name another place"):
        refuse_unwritable(Path(os.devnull) / "deep")


def test_what_is_no_matter_of_writing_is_nobody_s_here(tmp_path: Path) -> None:
    assert explained(OSError(errno.ECONNREFUSED, "refused"), tmp_path) is None
    assert explained(ValueError("no"), tmp_path) is None
