"""What is said about a data set that is not as it should be. A user's own is never advised away."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays, pins
from megu.data.sources import providers
from megu.erasure import versions
from megu.lineage.verify import checks

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A project with a user's own pinned data set; its folder."""
    images = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3, 1)
    labels: Any = np.array([0, 1, 0, 1])
    arrays.save(tmp_path / "data" / "pets", name="pets", classes=("cat", "dog"), train=(images, labels), test=(images, labels))
    pins.write(tmp_path, "pets", pins.hash_dir(tmp_path / "data" / "pets"))
    return tmp_path / "data" / "pets"


def test_what_systems_leave_stops_nothing(own: Path) -> None:
    root = own.parents[1]
    before = providers.fetch(root, "pets").dvc_hash
    for name in (".DS_Store", "._meta.json", "Thumbs.db", "@eaDir/x", ".nfs0001"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_bytes(b"x")
    assert providers.fetch(root, "pets").dvc_hash == before
    assert [entry.state for entry in providers.status(root) if entry.name == "pets"] == ["ok"]


def test_another_file_is_named(own: Path) -> None:
    root = own.parents[1]
    for name in ("README.txt", "a\nb"):
        (own / name).write_text("mine")
    with pytest.raises(MeguError) as raised:
        providers.fetch(root, "pets")
    assert str(raised.value) == (
        r"data/pets has files that do not belong to the data set: README.txt, 'a\nb': move them out of data/pets; all else is as pinned"
    )
    for name in ("README.txt", "a\nb"):
        (own / name).unlink()
    assert providers.fetch(root, "pets").pin == "match"


def test_a_check_of_a_dossier_sees_the_set_and_names_the_other_file(own: Path) -> None:
    found = pins.hash_dir(own)
    facts = SimpleNamespace(name="pets", dvc_hash=found.md5, size=found.size, nfiles=found.nfiles)
    case: Any = SimpleNamespace(project=Project(own.parents[1]), dossier=SimpleNamespace(data=facts))
    (own / "README.txt").write_text("mine")
    check = checks.data(case)
    assert check.holds
    assert "files that do not belong to the data set: README.txt" in check.says


def test_a_purge_which_replaces_the_folder_does_not_begin(own: Path) -> None:
    (own / "README.txt").write_text("mine")
    found: Any = SimpleNamespace(data=[(arrays.load(own), {})], key=b"")
    with pytest.raises(MeguError, match=r"README\.txt: move them out of data/pets"):
        versions.decide(Project(own.parents[1]), SimpleNamespace(), found, alone=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("spoilt", ["train_images.npy", "meta.json", "test_labels.npy"])
def test_an_own_data_set_is_kept(own: Path, spoilt: str) -> None:
    root = own.parents[1]
    (own / "README.txt").write_text("mine")
    (own / spoilt).write_bytes((own / spoilt).read_bytes()[:-3])
    with pytest.raises(MeguError) as raised:
        providers.fetch(root, "pets")
    assert raised.value.fix.startswith("keep data/pets, it may be the only copy")
    pins_file = (root / "data.dvc").read_text()
    (root / "data.dvc").unlink()  # without a pin the content is looked at
    (state,) = [entry for entry in providers.status(root) if entry.name == "pets"]
    assert state.state == "damaged"
    assert "keep data/pets, it may be the only copy" in state.notes[0]
    with pytest.raises(MeguError, match="keep the folder until then"):
        arrays.load(own)
    (root / "data.dvc").write_text(pins_file)


def test_images_there_twice_are_in_the_status(own: Path) -> None:
    root = own.parents[1]
    (state,) = [entry for entry in providers.status(root) if entry.name == "pets"]
    assert state.notes == ("4 images are in train and in test",)


def test_only_what_a_killed_fetch_left_is_removed(own: Path) -> None:
    for name in (".pets-abcd1234", ".my-own-notes", ".pets-2024"):
        (own.parent / name).mkdir()
    providers._remove_leftovers(own.parents[1])
    assert sorted(path.name for path in own.parent.iterdir()) == [".my-own-notes", ".pets-2024", "pets"]


def test_nowhere_is_a_data_set_advised_away() -> None:
    advised = re.compile(
        r"(remove|delete|erase|rm -rf?) (the folder|the data|data/|\{path\}|\{where\}|\{name\})", re.IGNORECASE
    )
    files = [path for package in ("megu", "tasks", "flows") for path in (REPOSITORY / package).rglob("*.py")]
    found = {f"{path.name}: {match.group()}" for path in files for match in advised.finditer(path.read_text())}
    assert found == set()
