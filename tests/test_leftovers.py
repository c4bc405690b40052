"""What killed processes leave is found and removed; what may still be written to is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from megu import leftovers
from megu.data.arrays import atomic_folder
from megu.project import Project
from megu.store import writing


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(entry, (then, then))


@pytest.fixture
def killed(project: Project) -> list[Path]:
    """The temporary files of a process that was killed while it wrote: an exception would have removed them."""
    with writing(project.store.root / "aa" / "file.png") as temporary:
        temporary.write_bytes(b"x")
        kept = [temporary.with_name(".writing-killed")]
        os.link(temporary, kept[0])
    for target in (project.data("some"), project.dossiers / "run"):
        with atomic_folder(target) as folder:
            (folder / "a.npy").write_bytes(b"x")
            name = folder.parent.name
        lost = target.parent / f"{name}killed" / "new"
        lost.mkdir(parents=True)
        (lost / "a.npy").write_bytes(b"x")
        kept.append(lost.parent)
    return kept


def test_they_are_found_once_nobody_has_written_for_a_while(project: Project, killed: list[Path]) -> None:
    assert leftovers.left(project) == []
    for path in killed:
        aged(path, 2 * leftovers.QUIET_S)
    assert set(leftovers.sweep(project)) == set(killed)
    assert not any(path.exists() for path in killed)
    assert (project.store.root / "aa" / "file.png").exists()
    assert (project.data("some") / "a.npy").exists()


def test_a_folder_in_which_one_file_is_new_is_still_written(project: Project, killed: list[Path]) -> None:
    aged(killed[1], 2 * leftovers.QUIET_S)
    (killed[1] / "new" / "b.npy").write_bytes(b"x")
    assert killed[1] not in leftovers.left(project)


def test_no_server_of_a_living_flow_or_another_project_is_abandoned(project: Project) -> None:
    assert leftovers.abandoned_servers(project) == []
