from __future__ import annotations

import errno
import functools
import gzip
import http.server
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import md5
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from suppression_fixtures import listing

from megu.core import plugins
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.vision import import_torchvision
from megu.data import arrays, dvc, pins
from megu.data.arrays import Dataset
from megu.data.images.packing import Packing
from megu.data.sources import cifar, downloads
from megu.data.sources.providers import Unavailable, add, fetch, status
from megu.suppression.screening import screen

IDX = {"train-images-idx3": (20, 4, 4), "train-labels-idx1": (20,), "t10k-images-idx3": (10, 4, 4), "t10k-labels-idx1": (10,)}


@pytest.fixture
def idx_files(tmp_path: Path) -> Path:
    """The four files of Fashion-MNIST, with 20 and 10 images of 4 x 4."""
    folder = tmp_path / "idx"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in IDX.items():
        values = rng.integers(0, 256, shape, dtype=np.uint8) if len(shape) == 3 else np.arange(shape[0], dtype=np.uint8) % 10
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes(), mtime=0))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def one_source(monkeypatch: pytest.MonkeyPatch, idx_files: Path) -> list[Path]:
    """fashion-mnist comes from ``idx_files`` only; the list has the scratch folder of each call."""
    calls: list[Path] = []

    def source(scratch: Path) -> Callable[[Path], Dataset]:
        calls.append(scratch)
        return downloads._write_fashion_mnist(idx_files)

    monkeypatch.setitem(downloads.SOURCES, "fashion-mnist", {"files": source})
    return calls


def entries(root: Path) -> list[str]:
    return sorted(entry.name for entry in (root / "data").iterdir()) if (root / "data").is_dir() else []


def test_the_first_fetch_and_the_next(root: Path, one_source: list[Path]) -> None:
    (root / "data" / ".fashion-mnist-killed_0").mkdir(parents=True)
    first = fetch(root, "fashion-mnist")
    assert (first.provider, first.pin, len(first.dvc_hash)) == ("files", "unpinned", 36)
    assert entries(root) == ["fashion-mnist"]
    assert not one_source[0].exists()
    pins.write(root, "fashion-mnist", pins.hash_dir(first.dataset_path))
    again = fetch(root, "fashion-mnist")
    assert (again.provider, again.pin, again.dvc_hash) == ("local", "match", first.dvc_hash)
    assert len(one_source) == 1


def test_two_at_once_fetch_once(root: Path, one_source: list[Path]) -> None:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(root, "fashion-mnist"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.provider for result in results) == ["files", "local", "local"]
    assert len(one_source) == 1


def test_damaged_data_name_both_hashes(root: Path, one_source: list[Path]) -> None:
    path = fetch(root, "fashion-mnist").dataset_path
    expected = pins.hash_dir(path)
    pins.write(root, "fashion-mnist", expected)
    data = bytearray((path / "train_images.npy").read_bytes())
    data[-1] ^= 1
    (path / "train_images.npy").write_bytes(data)
    with pytest.raises(MeguError, match="damaged or another data set") as raised:
        fetch(root, "fashion-mnist")
    assert expected.md5 in raised.value.what
    assert pins.hash_dir(path).md5 in raised.value.what
    assert raised.value.fix == "move data/fashion-mnist aside, do not delete it, and run `megu data fetch fashion-mnist`"
    assert [(entry.state, entry.notes) for entry in status(root)] == [("differs", (str(raised.value),))]
    shutil.rmtree(path)
    assert fetch(root, "fashion-mnist").pin == "match"


def test_another_data_set_from_a_provider_is_refused(root: Path, one_source: list[Path]) -> None:
    pins.write(root, "fashion-mnist", pins.DirHash("0" * 32 + ".dir", 1, 1))
    with pytest.raises(MeguError, match=f"expected {'0' * 32}.dir, got "):
        fetch(root, "fashion-mnist")
    assert entries(root) == []


def test_every_provider_that_fails_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(reason: str, scratch: Path) -> Callable[[Path], Dataset]:
        raise Unavailable(reason)

    sources = {"one": functools.partial(refuse, "is down"), "two": functools.partial(refuse, "is gone")}
    monkeypatch.setitem(downloads.SOURCES, "fashion-mnist", sources)
    pins.write(root, "fashion-mnist", pins.DirHash("0.dir", 1, 1))
    with pytest.raises(MeguError) as raised:
        fetch(root, "fashion-mnist")
    assert "dvc: not a DVC project; one: is down; two: is gone" in raised.value.what
    assert "dataset-fashion-mnist" in raised.value.fix
    assert "\n" not in str(raised.value)
    assert entries(root) == []


@pytest.mark.parametrize("name", ["absent", "../x", "", ".hidden", "a/b"])
def test_names(root: Path, name: str) -> None:
    with pytest.raises(MeguError, match=r"data\.name"):
        fetch(root, name)
    assert entries(root) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_does_not_take_it(
    root: Path, one_source: list[Path], monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    def fail(path: Path, array: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(arrays, "write_array", fail)
    with pytest.raises(MeguError, match=message):
        fetch(root, "fashion-mnist")
    assert entries(root) == []
    assert not one_source[0].exists()


def test_an_interrupt_leaves_nothing(root: Path, one_source: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, array: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write_array", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(root, "fashion-mnist")
    assert entries(root) == []
    assert fetch(root, "fashion-mnist").provider == "files"


def test_dvc_gives_back_what_it_has_seen(root: Path, one_source: list[Path], tmp_path: Path) -> None:
    """From the project's cache, then, in another clone, from a remote."""
    dvc.init(root)
    path = fetch(root, "fashion-mnist").dataset_path
    pin = pins.hash_dir(path)
    pins.write(root, "fashion-mnist", pin)
    fetch(root, "fashion-mnist")
    assert dvc.status(root) == {}
    shutil.rmtree(path)
    assert fetch(root, "fashion-mnist").provider == "dvc"

    with (root / ".dvc" / "config").open("a") as file:
        file.write(f"    remote = team\n['remote \"team\"']\n    url = {tmp_path / 'remote'}\n")
    dvc.run(root, "push", "--quiet")
    shutil.rmtree(path)
    shutil.rmtree(root / ".dvc" / "cache")
    pulled = fetch(root, "fashion-mnist")
    assert (pulled.provider, pulled.dvc_hash) == ("dvc", pin.md5)
    assert len(one_source) == 1

    # A remote that lost it: the next provider has its turn.
    shutil.rmtree(path)
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "remote")
    assert fetch(root, "fashion-mnist").provider == "files"


@pytest.fixture
def mirror(idx_files: Path) -> Iterator[str]:
    """A web server with the four files."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(idx_files)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_torchvisions_download(
    root: Path, mirror: str, idx_files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torchvision = import_torchvision()
    kind = torchvision.datasets.FashionMNIST
    sums = [(f"{name}-ubyte.gz", md5((idx_files / f"{name}-ubyte.gz").read_bytes()).hexdigest()) for name in IDX]
    monkeypatch.setattr(kind, "mirrors", [mirror])
    monkeypatch.setattr(kind, "resources", sums)
    monkeypatch.setattr(downloads, "_FASHION_MNIST_MIRROR", mirror)
    capfd.readouterr()
    fetched = fetch(root, "fashion-mnist")
    assert fetched.provider == "torchvision"
    assert len(arrays.load(fetched.dataset_path).train) == 20
    assert capfd.readouterr() == ("", "")

    # Files that are not the right ones: torchvision notices, and we pass its reason on.
    monkeypatch.setattr(kind, "resources", [(name, "0" * 32) for name, _ in sums])
    with pytest.raises(Unavailable, match="the download failed"):
        downloads._fashion_mnist_from_torchvision(root)


def test_no_network_is_found_out_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that does not resolve, a closed port, and a server that accepts and says nothing."""
    import socket

    with socket.socket() as silent, socket.socket() as closed:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed.bind(("127.0.0.1", 0))
        for host in ("nowhere.invalid", f"127.0.0.1:{closed.getsockname()[1]}", f"127.0.0.1:{silent.getsockname()[1]}"):
            monkeypatch.setattr(downloads, "_FASHION_MNIST_MIRROR", f"http://{host}/")
            start = time.perf_counter()
            with pytest.raises(Unavailable, match="mirror"):
                downloads._fashion_mnist_from_torchvision(tmp_path)
            assert time.perf_counter() - start < 4


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="builds a Debian package")
def test_the_os_package(root: Path, idx_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real package through an ``apt-get`` that first knows no package lists, as in a fresh container."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
    )
    shutil.copytree(idx_files, tree / downloads._PACKAGE_FILES)
    package = tmp_path / "dataset-fashion-mnist_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text(
        "#!/bin/sh\n"
        f'case "$*" in *update) touch {tmp_path}/updated;; *download*) test -e {tmp_path}/updated || '
        f'{{ echo "E: Unable to locate package" >&2; exit 100; }}; cp {package} .;; esac\n'
    )
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(downloads, "_PACKAGE_FILES", Path("usr/share/datasets/fashion-mnist"))
    if (Path("/") / downloads._PACKAGE_FILES).is_dir():
        pytest.skip("the package is installed, so nothing would be downloaded")
    monkeypatch.setitem(downloads.SOURCES, "fashion-mnist", {"os-package": downloads._fashion_mnist_from_os_package})
    assert fetch(root, "fashion-mnist").provider == "os-package"
    assert (tmp_path / "updated").exists()

    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="no apt-get"):
        downloads._fashion_mnist_from_os_package(tmp_path)


def own_images(folder: Path, *, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).save(folder / split / label / f"{i}.png")
    return folder


def test_add_pins_and_fetch_agrees(root: Path, tmp_path: Path) -> None:
    source = own_images(tmp_path / "own")
    added = add(root, source, "pets", licence="CC0-1.0")
    assert (added.provider, added.pin) == ("folder", "match")
    assert fetch(root, "pets").dvc_hash == added.dvc_hash == pins.read(root)["pets"].md5
    assert add(root, source, "pets", licence="CC0-1.0").dvc_hash == added.dvc_hash
    assert [(entry.name, entry.state) for entry in status(root)] == [("fashion-mnist", "missing"), ("pets", "ok")]
    loaded = arrays.load(added.dataset_path)
    assert (loaded.name, loaded.classes, loaded.licence, loaded.channels) == ("pets", ("cat", "dog"), "CC0-1.0", 3)

    other = own_images(tmp_path / "other", seed=1)
    with pytest.raises(MeguError, match="exists with other contents"):
        add(root, other, "pets")
    assert pins.hash_dir(added.dataset_path).md5 == added.dvc_hash

    # Lost, and no remote has it: adding the same images brings it back.
    shutil.rmtree(added.dataset_path)
    with pytest.raises(MeguError, match="make it again with `megu data add`"):
        fetch(root, "pets")
    with pytest.raises(MeguError, match="exists with other contents"):
        add(root, other, "pets")
    assert add(root, source, "pets", licence="CC0-1.0").dvc_hash == added.dvc_hash


def test_add_leaves_nothing_of_images_that_cannot_be_used(root: Path, tmp_path: Path) -> None:
    source = own_images(tmp_path / "own")
    (source / "test" / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(MeguError, match=r"test/dog/2\.png"):
        add(root, source, "pets")
    with pytest.raises(MeguError, match="cannot name"):
        add(root, source, "my pets")
    assert entries(root) == []
    assert pins.read(root) == {}


def test_adding_again_what_has_clutter_by_now_changes_nothing(root: Path, tmp_path: Path) -> None:
    source = own_images(tmp_path / "own")
    added = add(root, source, "pets")
    assert added.notes == ()
    (source / ".DS_Store").write_bytes(b"Finder was here")
    again = add(root, source, "pets")
    assert again.dvc_hash == added.dvc_hash == pins.read(root)["pets"].md5
    assert again.notes == ("left out: 1 .DS_Store (.DS_Store)",)


def test_what_is_left_out_is_in_the_description_of_a_users_own_set_only(root: Path, cifar100: dict[str, Path]) -> None:
    (cifar100["folders"] / "Thumbs.db").write_bytes(b"")
    assert fetch(root, "cifar100", [cifar100["folders"]]).notes == ("left out: 1 Thumbs.db (Thumbs.db)",)
    assert arrays.load(root / "data" / "cifar100").ignored == {}
    assert add(root, cifar100["folders"], "mine").notes == ("left out: 1 Thumbs.db (Thumbs.db)",)
    assert arrays.load(root / "data" / "mine").ignored == {"Thumbs.db": 1}


def test_a_known_name_is_for_its_own_classes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="do not have the classes of cifar10: choose another --name"):
        add(root, own_images(tmp_path / "own"), "cifar10")
    assert entries(root) == []


def cifar_pixels(seed: int, n: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The same 200 + 100 images as the authors' archive, in an order of their own, and as class folders."""
    kind = cifar.KINDS["cifar100"]
    folders, raw = tmp_path / "folders", tmp_path / "cifar-100-python"
    raw.mkdir()
    sums = {}
    for split, n in (("train", 200), ("test", 100)):
        pixels, order = cifar_pixels(n, n), np.random.default_rng(9).permutation(n)
        files = [f"{kind.classes[i % 100]}_s_{i:06d}" for i in range(n)]
        for i, name in enumerate(files):
            folder = folders / split / kind.classes[i % 100]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(folder / f"{name}.webp", lossless=True, exact=True)
        content = {
            "filenames": [f"{files[i]}.png" for i in order],
            "batch_label": f"{split}ing batch 1 of 1",
            "fine_labels": [int(i) % 100 for i in order],
            "coarse_labels": [0] * n,
            "data": pixels[order].transpose(0, 3, 1, 2).reshape(n, -1),
        }
        sums[split] = md5(save_pickle(raw / split, content)).hexdigest()
    sums["meta"] = md5(save_pickle(raw / "meta", {"fine_label_names": list(kind.classes)})).hexdigest()
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(raw, arcname="cifar-100-python")
    theirs = import_torchvision().datasets.CIFAR100
    monkeypatch.setattr(theirs, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(theirs, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(theirs, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(theirs, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    return {"archive": archive, "folders": folders}


def save_pickle(path: Path, content: Any) -> bytes:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path.read_bytes()


@pytest.mark.parametrize("name", ["cifar100", "cifar20"])
def test_what_was_erased_does_not_come_back_with_the_authors_archive(root: Path, cifar100: dict[str, Path], name: str) -> None:
    project = Project(root)
    listing(project, cifar_pixels(200, 200)[:3], data=name)
    with pytest.raises(MeguError, match=r"has 3 images that were erased \(3 images erased by r"):
        fetch(root, name, [cifar100["archive"]], partial(screen, project, "refuse"))
    assert entries(root) == []
    fetched = fetch(root, name, [cifar100["archive"]], partial(screen, project, "drop"))
    assert len(arrays.load(fetched.dataset_path).train) == 197
    assert fetch(root, name, screen=partial(screen, project, "refuse")).provider == "local"


def test_cifar_has_the_same_bytes_from_its_authors_and_as_class_folders(
    root: Path, cifar100: dict[str, Path], tmp_path: Path
) -> None:
    fetched = fetch(root, "cifar100", [cifar100["archive"]])
    assert fetched.provider == "file"
    other = tmp_path / "other"
    added = add(other, cifar100["folders"], "cifar100")
    assert added.dvc_hash == fetched.dvc_hash
    shutil.rmtree(added.dataset_path)
    (other / "data.dvc").unlink()
    assert fetch(other, "cifar100", [cifar100["folders"]]).dvc_hash == fetched.dvc_hash
    loaded = arrays.load(fetched.dataset_path)
    assert (loaded.num_classes, loaded.image_size, loaded.source) == (100, (32, 32), cifar.SOURCE)
    assert loaded.coarse is not None
    assert loaded.coarse[loaded.classes.index("rocket")] == "vehicles_2"


def test_torchvisions_download_of_cifar(
    root: Path, cifar100: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(cifar100["archive"].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(downloads, "_CIFAR_MIRROR", address)
        monkeypatch.setattr(import_torchvision().datasets.CIFAR100, "url", f"{address}cifar-100-python.tar.gz")
        assert fetch(root, "cifar100").provider == "torchvision"
        server.shutdown()
    assert capfd.readouterr().out == ""


def test_cifar20_is_cifar100_by_superclass(root: Path, cifar100: dict[str, Path], tmp_path: Path) -> None:
    fetched = fetch(root, "cifar20", [cifar100["folders"]])
    assert entries(root) == ["cifar100", "cifar20"]
    coarse, fine = (arrays.load(root / "data" / name) for name in ("cifar20", "cifar100"))
    assert (coarse.num_classes, coarse.fine) == (20, fine.classes)
    assert fine.coarse is not None
    assert [coarse.classes[k] for k in coarse.train.labels] == [fine.coarse[k] for k in fine.train.labels]
    assert np.array_equal(coarse.train.fine, fine.train.labels)
    assert np.array_equal(coarse.train.ids, fine.train.ids)
    added = add(tmp_path / "other", cifar100["folders"], "cifar20", packing=Packing(coarse_labels=True))
    assert added.dvc_hash == fetched.dvc_hash, "the same bytes as made of the class folders at once"


def test_a_file_that_is_not_cifar_is_said(root: Path, cifar100: dict[str, Path]) -> None:
    cifar100["archive"].write_bytes(b"not it")
    with pytest.raises(MeguError, match="file: the download failed"):
        fetch(root, "cifar100", [cifar100["archive"]])
    assert entries(root) == []


def test_an_installed_package_brings_a_data_set(root: Path, idx_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "theirs.py").write_text(
        "from megu.data.sources import downloads\nfrom pathlib import Path\n"
        f"def source(scratch): return downloads._write_fashion_mnist(Path({str(idx_files)!r}))\n"
    )
    monkeypatch.syspath_prepend(str(root))
    entry = EntryPoints([EntryPoint("photos", "theirs:source", "megu.datasets")])
    monkeypatch.setattr(plugins, "entry_points", lambda group: entry.select(group=group))
    assert "photos" in downloads.names()
    assert fetch(root, "photos").pin == "unpinned"
    assert entries(root) == ["photos"]
