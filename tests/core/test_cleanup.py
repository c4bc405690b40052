"""What killed processes leave is found and removed at once; what has an owner is not, however long it is silent."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from megu.core.files import cleanup, temporary
from megu.core.files.store import writing
from megu.core.project import Project
from megu.data import pins
from megu.data.pins import DirHash
from megu.data.writing import atomic_folder


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(entry, (then, then))


@pytest.fixture
def killed(project: Project) -> list[Path]:
    """The temporary files of a process that was killed while it wrote: an exception would have removed them."""
    with writing(project.store.root / "aa" / "file.png") as path:
        path.write_bytes(b"x")
        kept = [path.with_name(".writing-killed")]
        shutil.copyfile(path, kept[0])
    for target in (project.data("some"), project.dossiers / "run"):
        with atomic_folder(target) as folder:
            (folder / "a.npy").write_bytes(b"x")
            kept.append(target.parent / f".{target.name}-killed")
            shutil.copytree(folder.parent, kept[-1])
    return kept


def test_they_are_found_at_once(project: Project, killed: list[Path]) -> None:
    assert set(cleanup.sweep(project)) == set(killed)
    assert not any(path.exists() for path in killed)
    assert (project.store.root / "aa" / "file.png").exists()
    assert (project.data("some") / "a.npy").exists()


def test_what_is_being_written_is_left_alone_however_long_it_takes(project: Project) -> None:
    with ExitStack() as stack:
        written = [stack.enter_context(writing(project.store.root / "aa" / "file.png"))]
        written += [stack.enter_context(atomic_folder(target)).parent for target in (project.data("b"), project.dossiers / "r")]
        for path in written:
            aged(path, 86400)
        assert cleanup.sweep(project) == []
        assert all(path.exists() for path in written)
        written[0].write_bytes(b"x")


def test_a_folder_of_somebody_else_is_left_alone_and_an_empty_one_is_ours_after_a_while(project: Project) -> None:
    theirs, empty = project.data(".their-folder"), project.data(".some-empty")
    for folder in (theirs, empty):
        folder.mkdir(parents=True)
    (theirs / "file").write_bytes(b"x")
    assert cleanup.left(project) == []
    aged(theirs, 86400)
    aged(empty, 2 * temporary.YOUNG_S)
    assert cleanup.left(project) == [empty]


def test_a_checkpoint_is_kept_for_a_month(project: Project) -> None:
    project.checkpoints.mkdir(parents=True)
    old, new = (project.checkpoints / f"original-{name}.safetensors" for name in ("old", "new"))
    for path, days in ((old, cleanup.CHECKPOINT_DAYS + 1), (new, cleanup.CHECKPOINT_DAYS - 1)):
        path.write_bytes(b"x")
        aged(path, days * 86400)
    assert cleanup.sweep(project) == [old]


def test_a_pin_stays_readable_for_whoever_could_read_it(project: Project) -> None:
    pins.write(project.root, "one", DirHash("0" * 32 + ".dir", 1, 1))
    assert (project.root / "data.dvc").stat().st_mode & 0o777 == 0o644
    (project.root / "data.dvc").chmod(0o664)
    pins.write(project.root, "two", DirHash("0" * 32 + ".dir", 1, 1))
    assert (project.root / "data.dvc").stat().st_mode & 0o777 == 0o664
    assert sorted(path.name for path in project.root.iterdir()) == ["data.dvc", "params.yaml"]
