from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from megu.core.errors import MeguError
from megu.data import dvc, pins
from megu.data.images.clutter import CLUTTER, hide_from_dvc
from megu.data.pins import DirHash, hash_dir

REPOSITORY = Path(__file__).resolve().parents[2]


def folder(path: Path) -> Path:
    (path / "sub dir").mkdir(parents=True)
    (path / "b.npy").write_bytes(bytes(range(256)) * 9)
    (path / "a-ü.json").write_text("{}")
    (path / "a").write_text("")
    (path / "sub dir" / "c\r\n.txt").write_bytes(b"1\r\n2\r\n")
    (path / "sub.txt").write_text("x")
    return path


def test_the_hash_is_dvcs_own(tmp_path: Path) -> None:
    """Two pinned folders in one data.dvc: DVC finds nothing to change, and writes the same file we do."""
    hashes = {}
    for name in ("one", "two"):
        hashes[name] = hash_dir(folder(tmp_path / "data" / name))
        (tmp_path / "data" / name / "own").write_text(name)
        hashes[name] = hash_dir(tmp_path / "data" / name)
        pins.write(tmp_path, name, hashes[name])
    ours = (tmp_path / "data.dvc").read_text()
    dvc.init(tmp_path)
    for clutter in (".DS_Store", "sub dir/._b.npy", "Thumbs.db", "#recycle/c", ".ipynb_checkpoints/c"):
        (tmp_path / "data" / "one" / clutter).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / "one" / clutter).write_text("left by a system")
    assert hash_dir(tmp_path / "data" / "one") == hashes["one"]
    hide_from_dvc(tmp_path)
    dvc.run(tmp_path, "commit", "--quiet", "--force", "data.dvc")
    assert (tmp_path / "data.dvc").read_text() == ours
    assert dvc.status(tmp_path) == {}
    assert all(dvc.in_cache(tmp_path, pin) for pin in hashes.values())

    # One data set can be brought back without the other.
    shutil.rmtree(tmp_path / "data")
    dvc.run(tmp_path, "checkout", "--quiet", "data/two")
    assert hash_dir(tmp_path / "data" / "two") == hashes["two"]
    assert not (tmp_path / "data" / "one").exists()


def test_dvc_is_told_of_clutter_once_and_only_where_there_is_some(tmp_path: Path) -> None:
    folder(tmp_path / "data" / "one")
    hide_from_dvc(tmp_path)
    assert not (tmp_path / ".dvcignore").exists()
    (tmp_path / ".dvcignore").write_text("mine\n.DS_Store")
    (tmp_path / "data" / "one" / ".DS_Store").write_text("")
    for _ in range(2):
        hide_from_dvc(tmp_path)
        lines = (tmp_path / ".dvcignore").read_text().splitlines()
        assert lines[:2] == ["mine", ".DS_Store"]
        assert len(lines) == len(CLUTTER) + 2
        assert len(set(lines)) == len(lines)


def test_the_repository_tells_dvc_of_all_clutter(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Thumbs.db").write_text("")
    shutil.copy(REPOSITORY / ".dvcignore", tmp_path)
    hide_from_dvc(tmp_path)
    assert (tmp_path / ".dvcignore").read_bytes() == (REPOSITORY / ".dvcignore").read_bytes()


def test_read_and_write(tmp_path: Path) -> None:
    assert pins.read(tmp_path) == {}
    one, two, three = (DirHash(f"{n}.dir", n, n) for n in range(3))
    pins.write(tmp_path, "b", one)
    pins.write(tmp_path, "a", two)
    pins.write(tmp_path, "b", three)
    assert pins.read(tmp_path) == {"a": two, "b": three}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.dvc"]


@pytest.mark.parametrize(
    "text", ["outs", "outs: [1]", "outs:\n- path: x", "[", "outs: [{path: a, md5: b, size: x, nfiles: 1}]"]
)
def test_a_broken_pin_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(MeguError, match=r"data\.dvc is not a DVC file"):
        pins.read(tmp_path)


def test_any_change_changes_the_hash(tmp_path: Path) -> None:
    path = folder(tmp_path / "data" / "x")
    hashes = [hash_dir(path, tmp_path)]
    (path / "a").write_text("1")
    hashes.append(hash_dir(path, tmp_path))
    (path / "a").rename(path / "renamed")
    hashes.append(hash_dir(path, tmp_path))
    (path / "renamed").unlink()
    hashes.append(hash_dir(path, tmp_path))
    assert len({entry.md5 for entry in hashes}) == len(hashes)
    assert hashes[-1].nfiles == 4


def test_the_memo_saves_reading_and_notices_a_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "data" / "x")
    first = hash_dir(path, tmp_path)
    read: list[str] = []
    real = pins._file_md5
    monkeypatch.setattr(pins, "_file_md5", lambda file: (read.append(file.name), real(file))[1])
    assert hash_dir(path, tmp_path) == first
    assert read == []
    # The same size and the same time of modification: the time of change gives it away.
    stat = (path / "b.npy").stat()
    (path / "b.npy").write_bytes(bytes(256 * 9))
    os.utime(path / "b.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hash_dir(path, tmp_path) != first
    assert read == ["b.npy"]
    (tmp_path / ".megu" / "hashes.json").write_text("[]{")
    assert hash_dir(path, tmp_path) == hash_dir(path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="not a folder"):
        hash_dir(tmp_path / "absent")


def test_the_repository_pins_fashion_mnist(fashion_mnist_project: Path) -> None:
    assert hash_dir(fashion_mnist_project / "data" / "fashion-mnist") == pins.read(REPOSITORY)["fashion-mnist"]
