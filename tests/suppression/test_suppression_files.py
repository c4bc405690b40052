"""Images of any size and place against a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from purge_fixtures import encoded, garments
from suppression_fixtures import KEY, folders, record

from megu.core.errors import MeguError
from megu.data.sources import providers
from megu.suppression import SuppressionList
from megu.suppression import files as checking
from megu.suppression.files import check_files

IMAGES = garments(9, 3, size=32)
LISTED = SuppressionList([record(IMAGES[:3])], KEY)


def found(source: Path) -> list[tuple[str, str]]:
    return [(row.name, row.verdict) for row in check_files(LISTED, source).rows]


def test_images_at_any_place_and_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_TOGETHER", 4 * IMAGES[0].size)  # more than one run of them
    for number, image in enumerate(IMAGES):
        (tmp_path / "deep" / "down").mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / "down" / f"{number}.png").write_bytes(encoded(image))
    (tmp_path / "large.jpg").write_bytes(encoded(IMAGES[1], "JPEG", 64, quality=90))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "superclasses.json").write_text("{}")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "read.me").write_text("no image")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    checked = check_files(LISTED, tmp_path)
    assert (checked.images, checked.unreadable) == (10, ["broken.png", "gone"])
    certain = [row.name for row in checked.rows if row.verdict == "certain"]
    assert [Path(name).name for name in certain] == ["0.png", "1.png", "2.png"]
    assert [Path(row.name).name for row in checked.rows if row.verdict == "suspected"] == ["large.jpg"]
    assert (checked.count("certain"), checked.count("suspected")) == (3, 1)


def test_a_data_set_folder_is_read_as_one(tmp_path: Path) -> None:
    folder = providers.add(tmp_path, folders(tmp_path / "own", IMAGES), "photos").dataset_path
    assert found(folder) == [("train/a/000", "certain"), ("train/a/001", "certain"), ("train/a/002", "certain")]


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "read.me").write_text("no image")
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MeguError):
            check_files(LISTED, source)
