"""What was erased is offered again in every way there is: refused, or left out and named."""

from __future__ import annotations

import ast
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from purge_fixtures import garments
from suppression_fixtures import REQUEST, folders, listing, resized

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays, pins
from megu.data.images.packing import Packing
from megu.data.sources import downloads, providers
from megu.suppression import screening
from megu.suppression.store import Suppressions

ROOT = Path(__file__).resolve().parents[2]
IMAGES = garments(24, 3, size=32)
#: Of the class folders of `IMAGES`: two training images and a test image.
GONE = [1, 3, 8]
ERASED = IMAGES[GONE]


def screen(project: Project, policy: Any) -> providers.Screen:
    return partial(screening.screen, project, policy)


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as opened:
        for path in sorted(folder.rglob("*.*")):
            opened.write(path, path.relative_to(folder))
    return folder.with_suffix(".zip")


OFFERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda own: folders(own, IMAGES),
    "archive": lambda own: zipped(folders(own, IMAGES)),
    "renamed": lambda own: folders(own, IMAGES, start=700),
    "another format": lambda own: folders(own, IMAGES, "WEBP", lossless=True, exact=True),
    "another name and format": lambda own: folders(own, IMAGES, "BMP", start=50),
}


@pytest.mark.parametrize("offer", OFFERS)
def test_what_was_erased_is_refused_or_left_out_when_it_is_added_again(project: Project, tmp_path: Path, offer: str) -> None:
    listing(project, ERASED)
    source = OFFERS[offer](tmp_path / "own")
    with pytest.raises(
        MeguError, match=rf"data/photos has 3 images that were erased \(3 images erased by {REQUEST}, on 2026-11-27"
    ):
        providers.add(project.root, source, "photos", screen=screen(project, "refuse"))
    assert not project.data("photos").exists()
    assert not (project.root / "data.dvc").exists()
    added = providers.add(project.root, source, "photos", screen=screen(project, "drop"))
    (line,) = (note for note in added.notes if "erased" in note)
    assert line.startswith(f"left out: 3 images erased by {REQUEST}, on 2026-11-27: train/a/")
    assert line.count("/a/") + line.count("/b/") == 3
    found = arrays.load(project.data("photos"))
    ids = {*found.train.ids.tolist(), *found.test.ids.tolist()}
    assert ids == {*arrays.image_ids(IMAGES).tolist()} - {*arrays.image_ids(ERASED).tolist()}
    assert pins.read(project.root)["photos"].md5 == pins.hash_dir(project.data("photos")).md5
    assert providers.add(project.root, source, "photos", screen=screen(project, "drop")).dvc_hash == added.dvc_hash


@pytest.mark.parametrize("change", ["jpeg", "half", "double"])
def test_another_size_or_quality_is_shown_and_stays(project: Project, tmp_path: Path, change: str) -> None:
    images = garments(24, 3, size=64)
    listing(project, images[GONE])
    if change == "jpeg":
        source = folders(tmp_path / "own", images, "JPEG", quality=90)
    else:
        source = folders(tmp_path / "own", resized(images, {"half": 32, "double": 128}[change]))
    added = providers.add(project.root, source, "photos", screen=screen(project, "refuse"))
    (line,) = (note for note in added.notes if "erased" in note)
    assert line.startswith(f"suspected: 3 images much like one that was erased by {REQUEST}, on 2026-11-27: ")
    assert sum(len(getattr(arrays.load(project.data("photos")), split)) for split in arrays.SPLITS) == 24


def test_files_that_are_packed_in_the_size_of_the_erased_ones_are_those(project: Project, tmp_path: Path) -> None:
    source = folders(tmp_path / "own", garments(24, 3, size=48))
    before = providers.add(project.root, source, "photos", packing=Packing(size=(32, 32))).dataset_path
    listing(project, np.asarray(arrays.load(before).train.images[:2]))
    with pytest.raises(MeguError, match="2 images that were erased"):
        providers.add(project.root, source, "again", packing=Packing(size=(48, 48)), screen=screen(project, "refuse"))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set that is fetched by name."""

    def write(path: Path) -> Any:
        images = {"train": IMAGES[:16], "test": IMAGES[16:]}
        labelled = {split: (part, np.arange(len(part)) % 2) for split, part in images.items()}
        return arrays.save(path, name="made-up", classes="ab", **labelled)

    monkeypatch.setitem(downloads.SOURCES, "made-up", {"files": lambda scratch: write})
    return "made-up"


def test_what_was_erased_is_refused_or_left_out_when_it_is_fetched_again(project: Project, source: str) -> None:
    listing(project, ERASED)
    with pytest.raises(MeguError, match="has 3 images that were erased"):
        providers.fetch(project.root, source, screen=screen(project, "refuse"))
    assert [path.name for path in (project.root / "data").iterdir()] == []
    fetched = providers.fetch(project.root, source, screen=screen(project, "drop"))
    assert [note for note in fetched.notes if note.startswith("left out: 3 images erased")]
    again = providers.fetch(project.root, source, screen=screen(project, "refuse"))
    assert (again.provider, again.dvc_hash, again.notes) == ("local", fetched.dvc_hash, ())


def test_a_restored_backup_is_found_and_the_version_without_the_images_is_pinned(
    project: Project, source: str, tmp_path: Path
) -> None:
    folder = providers.fetch(project.root, source).dataset_path
    old = pins.hash_dir(folder)
    pins.write(project.root, source, old)
    shutil.copytree(folder, tmp_path / "backup")
    listing(project, ERASED)
    with pytest.raises(MeguError, match=r"has 3 images that were erased .*megu purge --apply"):
        providers.fetch(project.root, source, screen=screen(project, "refuse"))
    assert pins.hash_dir(folder).md5 == pins.read(project.root)[source].md5 == old.md5
    fetched = providers.fetch(project.root, source, screen=screen(project, "drop"))
    new = pins.read(project.root)[source]
    assert (fetched.pin, fetched.dvc_hash) == ("match", new.md5)
    assert new.md5 != old.md5
    for pin in (new, old):  # as a kill between the two leaves it, and as `git checkout` with `dvc checkout` does
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "backup", folder)
        pins.write(project.root, source, pin)
        assert not screening.is_clean(project, source)
        fetched = providers.fetch(project.root, source, screen=screen(project, "drop"))
        assert pins.read(project.root)[source] == new == pins.hash_dir(folder)
        assert fetched.notes[0].startswith("left out: 3 images erased")
        assert screening.is_clean(project, source)


def test_a_kill_before_the_new_version_is_in_its_place_loses_nothing(
    project: Project, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = providers.fetch(project.root, source).dataset_path
    old = pins.hash_dir(folder)
    pins.write(project.root, source, old)
    listing(project, ERASED)

    class Killed(BaseException):
        pass

    def killed(*arguments: Any) -> None:
        raise Killed

    for step in ("write_without", "write"):
        with monkeypatch.context() as patched:
            patched.setattr(screening.erasing if step == "write_without" else screening.pins, step, killed)
            with pytest.raises(Killed):
                providers.fetch(project.root, source, screen=screen(project, "drop"))
        assert pins.hash_dir(folder) == old == pins.read(project.root)[source]
    assert providers.fetch(project.root, source, screen=screen(project, "drop")).pin == "match"
    assert pins.hash_dir(folder) != old


def test_a_folder_is_looked_at_once_for_each_version_of_it_and_of_the_list(
    project: Project, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = providers.fetch(project.root, source).dataset_path
    looked = list[Path]()
    original = screening.screened
    monkeypatch.setattr(screening, "screened", lambda project, folder: looked.append(folder) or original(project, folder))
    for _ in range(2):
        assert providers.fetch(project.root, source, screen=screen(project, "refuse")).notes == ()
    assert looked == [], "there is no list"
    listing(project, garments(2, 3, seed=8, size=32))
    for _ in range(2):
        assert providers.fetch(project.root, source, screen=screen(project, "refuse")).notes == ()
    assert looked == [folder]
    listing(project, ERASED)
    with pytest.raises(MeguError, match="were erased"):
        providers.fetch(project.root, source, screen=screen(project, "refuse"))


def test_a_list_that_is_not_whole_lets_nothing_in(project: Project, source: str) -> None:
    new = listing(project, ERASED)
    path = Suppressions(project).path(new.header.id)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    for spoil in (lambda: path.write_bytes(bytes(content)), path.unlink):
        spoil()
        for policy in ("refuse", "drop"):
            with pytest.raises(MeguError, match=new.header.id):
                providers.fetch(project.root, source, screen=screen(project, policy))
            assert not project.data(source).exists()


def test_a_folder_with_more_in_it_or_with_nothing_left_stays_as_it_is(project: Project, source: str) -> None:
    folder = providers.fetch(project.root, source).dataset_path
    listing(project, ERASED)
    (folder / "notes.txt").write_text("mine")
    before = pins.hash_dir(folder)
    with pytest.raises(MeguError, match=r"do not belong to the data set: notes\.txt"):
        providers.fetch(project.root, source, screen=screen(project, "drop"))
    (folder / "notes.txt").unlink()
    listing(project, IMAGES[16:])
    with pytest.raises(MeguError, match="nothing would be left of the test images"):
        providers.fetch(project.root, source, screen=screen(project, "drop"))
    assert pins.hash_dir(folder).nfiles == before.nfiles - 1


def test_whatever_brings_a_data_set_here_looks_at_the_list() -> None:
    calls = {}
    for package in ("megu", "tasks", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("providers.fetch", "providers.add"):
                    calls[f"{path.name}:{node.lineno}"] = ast.unparse(node)
    assert len(calls) >= 4
    for place, call in calls.items():
        assert "screen" in call, place
