"""Where data sets come from: a chain of providers that all give the same bytes.

`fetch` tries, in order, what is already there, DVC (cache or remote), and the sources registered in `SOURCES`; the result is
compared with its pin before it takes its place under ``data/``. `add` makes a data set of a user's own images.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megu.data import arrays, dvc, images, pins
from megu.data.arrays import Dataset
from megu.data.pins import DirHash
from megu.errors import MeguError
from megu.progress import track

Pin = Literal["match", "unpinned"]

_REACH_S = 2.0
_SOCKET_S = 10.0
_APT_S = 300.0


class Unavailable(Exception):
    """This provider cannot give the data set here; the next one may. The message is a few words."""


@dataclass(frozen=True)
class Fetched:
    """A data set in place.

    Attributes
    ----------
    dataset_path: ``<root>/data/<name>``.
    provider: who gave it: "local" (already there), "dvc", "torchvision", "os-package" or "folder".
    dvc_hash: DVC's directory hash (36 characters, ending in ".dir").
    pin: "match", or "unpinned" when ``data.dvc`` does not know the name. A mismatch is an error.
    """

    dataset_path: Path
    provider: str
    dvc_hash: str
    pin: Pin


@dataclass(frozen=True)
class State:
    """One line of `status`: ``state`` is "ok", "unpinned", "differs" (from the pin), "damaged" or "missing"."""

    name: str
    state: Literal["ok", "unpinned", "differs", "damaged", "missing"]
    expected: str | None
    actual: str | None


def fetch(root: Path, name: str) -> Fetched:
    """Put data set ``name`` into ``<root>/data/<name>`` and compare it with its pin. Safe to run twice at once.

    Raises
    ------
    MeguError: unknown name, no provider works (each is named with its reason), different or damaged bytes, or a full disk.
    """
    path = root / "data" / name
    _check_name(name)
    with arrays.write_errors_answered(path), dvc.file_lock(root / ".megu" / "data.lock"):
        pin = pins.read(root).get(name)
        if path.exists():
            fetched = _check(root, path, pin, "local")
        else:
            _remove_leftovers(root)
            fetched = _obtain(root, name, pin)
    _share_with_dvc(root, pin)
    return fetched


def _obtain(root: Path, name: str, pin: DirHash | None) -> Fetched:
    path = root / "data" / name
    failures = []
    if pin is not None:
        try:
            _from_dvc(root, name, pin)
            return _check(root, path, pin, "dvc")
        except Unavailable as reason:
            failures.append(f"dvc: {reason}")
    for provider, source in SOURCES.get(name, {}).items():
        try:
            with tempfile.TemporaryDirectory(prefix="megu-data-") as scratch:
                write = source(Path(scratch))
                with _staged(path) as staged:
                    write(staged)
                    fetched = _check(root, staged, pin, provider)
                return Fetched(path, provider, fetched.dvc_hash, fetched.pin)
        except Unavailable as reason:
            failures.append(f"{provider}: {reason}")
    if not failures:
        known = ", ".join(sorted({*SOURCES, *pins.read(root)}))
        raise MeguError(
            f"data.name: no data set {name!r} here and no way to fetch one",
            f"known: {known}; bring your own with `megu data add FOLDER --name {name}`",
        )
    fix = FIXES.get(name, "configure a DVC remote that has it (`dvc remote add`), or make it again with `megu data add`")
    raise MeguError(f"data set {name!r} could not be fetched ({'; '.join(failures)})", fix)


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Where to build ``path`` so that it appears only when the block, with its comparison, succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary / path.name
        (temporary / path.name).rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    """Drop what a killed fetch left; called under the lock, so nobody is writing there."""
    for leftover in (root / "data").glob(".*-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _check(root: Path, path: Path, pin: DirHash | None, provider: str) -> Fetched:
    """Compare a folder with its pin, then open it."""
    where = f"data/{path.name}"
    actual = pins.hash_dir(path, root if provider == "local" else None)
    if pin is not None and actual.md5 != pin.md5:
        raise MeguError(
            f"{where} from {provider} is damaged or another data set: expected {pin.md5}, got {actual.md5}",
            f"remove {where} and run `megu data fetch`"
            if provider in ("local", "dvc")
            else "if the new data are right, change the pin in data.dvc; else report where they came from",
        )
    arrays.load(path)
    return Fetched(path, provider, actual.md5, "unpinned" if pin is None else "match")


def _share_with_dvc(root: Path, pin: DirHash | None) -> None:
    """Let DVC's cache know a data set that came another way, or ``dvc status`` calls it "not in cache".

    DVC can only commit ``data.dvc`` as a whole, so this waits until every pinned data set is there. The data are good without
    it: a DVC that fails is no reason to fail.
    """
    if pin is None or dvc.in_cache(root, pin) or not (root / ".dvc").is_dir():
        return
    if all((root / "data" / name).is_dir() for name in pins.read(root)):
        with contextlib.suppress(MeguError):
            dvc.run(root, "commit", "--quiet", "--force", pins.FILE)


# --- providers ---------------------------------------------------------------------------------------------------------------


def _from_dvc(root: Path, name: str, pin: DirHash) -> None:
    """Check the folder out of DVC's cache, or pull it from the configured remote."""
    if not (root / ".dvc").is_dir():
        raise Unavailable("not a DVC project")
    if dvc.in_cache(root, pin):
        command = "checkout"
    elif dvc.has_remote(root):
        command = "pull"
    else:
        raise Unavailable("no remote configured")
    try:
        with track(f"dvc {command} {name}"):
            dvc.run(root, command, "--quiet", f"data/{name}")
    except MeguError as error:
        shutil.rmtree(root / "data" / name, ignore_errors=True)
        raise Unavailable(error.what) from error


_FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


#: What is known of a data set before it is here.
CLASSES = {
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
}


def _write_fashion_mnist(folder: Path) -> Callable[[Path], Dataset]:
    """Read the four IDX files in ``folder``; the function returned writes the data set."""
    try:
        idx = [images.read_idx(folder / f"{name}.gz") for name in _FASHION_MNIST_FILES]
    except (OSError, ValueError) as error:
        raise Unavailable(f"its files cannot be read ({error})") from error
    train_images, train_labels, test_images, test_labels = idx
    return lambda path: arrays.save(
        path,
        name="fashion-mnist",
        classes=CLASSES["fashion-mnist"],
        train=(train_images[..., None], train_labels.astype("int64")),
        test=(test_images[..., None], test_labels.astype("int64")),
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
    )


_FASHION_MNIST_MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def _fashion_mnist_from_torchvision(scratch: Path) -> Callable[[Path], Dataset]:
    # Asked first and cheaply: importing torchvision takes seconds, and its own download retries and prints.
    if reason := _unreachable(f"{_FASHION_MNIST_MIRROR}{_FASHION_MNIST_FILES[-1]}.gz"):
        raise Unavailable(reason)
    try:
        torchvision = _import_torchvision()
    except Exception as error:
        raise Unavailable(f"it cannot be imported ({error})") from error
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SOCKET_S)
    try:
        noise = io.StringIO()
        with track("download fashion-mnist"), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            torchvision.datasets.FashionMNIST(str(scratch), download=True)
    except (OSError, RuntimeError) as error:
        if arrays.is_disk_full(error):
            raise
        raise Unavailable(f"the download failed ({' '.join(str(error).split())})") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return _write_fashion_mnist(scratch / "FashionMNIST" / "raw")


def _unreachable(url: str) -> str:
    """Why ``url`` does not answer within `_REACH_S` seconds, or "" when it does.

    In a thread, because a name look-up knows no timeout.
    """
    result = [f"no answer from its mirror in {_REACH_S:.0f} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_S).close()
            result[0] = ""
        except Exception as error:
            result[0] = f"its mirror cannot be reached ({getattr(error, 'reason', error)})"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_S + 0.5)
    return result[0]


def _import_torchvision() -> Any:
    """Import torchvision, also a CUDA build of it on a CPU torch, which lacks the schemas of two operators."""
    import importlib
    import sys

    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


_PACKAGE = "dataset-fashion-mnist"
_PACKAGE_FILES = Path("usr/share/datasets/fashion-mnist")


def _fashion_mnist_from_os_package(scratch: Path) -> Callable[[Path], Dataset]:
    """The files of the Debian package: installed, or downloaded and unpacked into ``scratch``, which needs no root."""
    if (installed := Path("/") / _PACKAGE_FILES).is_dir():
        return _write_fashion_mnist(installed)
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"no {tool} on this system")
    with track(f"download {_PACKAGE}"):
        _apt_download(scratch)
        packages = list(scratch.glob(f"{_PACKAGE}_*.deb"))
        if not packages:
            raise Unavailable("apt-get gave no package")
        _command(scratch, "dpkg-deb", "-x", str(packages[0]), str(scratch / "unpacked"))
    return _write_fashion_mnist(scratch / "unpacked" / _PACKAGE_FILES)


def _apt_download(scratch: Path) -> None:
    """``apt-get download``; where the system's package lists are absent or stale, once more with lists of our own."""
    options = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10"]
    try:
        _command(scratch, "apt-get", *options, "download", _PACKAGE)
    except Unavailable:
        state = scratch / "apt"
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "archives" / "partial").mkdir(parents=True)
        options += ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state}"]
        options += ["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1"]
        _command(scratch, "apt-get", *options, "update")
        _command(scratch, "apt-get", *options, "download", _PACKAGE)


def _command(folder: Path, *command: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_APT_S
        )
    except subprocess.CalledProcessError as error:
        lines = [line.removeprefix("E:").strip() for line in error.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        if "No space left" in error.stderr:
            raise MeguError(f"the disk is full: {folder} could not be written", "free some space and run again") from error
        raise Unavailable(f"{command[0]} failed ({(lines or ['no reason given'])[0]})") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} did not finish in {_APT_S:.0f} s") from error


#: Data set -> provider -> function that obtains the raw files in a scratch folder and returns the function that writes the data
#: set. Adding a data set is an entry here and a pin.
SOURCES: dict[str, dict[str, Callable[[Path], Callable[[Path], Dataset]]]] = {
    "fashion-mnist": {
        "torchvision": _fashion_mnist_from_torchvision,
        "os-package": _fashion_mnist_from_os_package,
    },
}

FIXES = {
    "fashion-mnist": f"connect to the network, or install the package {_PACKAGE}, or configure a DVC remote that has it",
}


# --- a user's own data -------------------------------------------------------------------------------------------------------


def add(root: Path, source: Path | Sequence[Path], name: str, *, source_name: str = "", licence: str = "") -> Fetched:
    """Make data set ``name`` of class folders (see `megu.data.images.read_class_folders`) and pin it in ``data.dvc``.

    Adding the same images again changes nothing.

    Raises
    ------
    MeguError: a name that is no plain folder name or is taken by other data, images that cannot be used, or a full disk.
    """
    _check_name(name)
    path = root / "data" / name
    pin = pins.read(root).get(name)
    found = images.read_class_folders(source)
    with arrays.write_errors_answered(path), dvc.file_lock(root / ".megu" / "data.lock"):
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=_folder(path.parent)) as scratch:
            staged = Path(scratch) / name
            arrays.save(
                staged,
                name=name,
                classes=found.classes,
                coarse=found.coarse,
                train=found.train,
                test=found.test,
                source=source_name,
                licence=licence,
            )
            new = pins.hash_dir(staged)
            old = pins.hash_dir(path, root).md5 if path.exists() else pin.md5 if pin else new.md5
            if {old, pin.md5 if pin else old} != {new.md5}:
                raise MeguError(
                    f"data set {name!r} exists with other contents ({old}; these images give {new.md5})",
                    f"choose another --name, or remove data/{name} and its entry in data.dvc",
                )
            if not path.exists():
                staged.rename(path)
        pins.write(root, name, new)
    _share_with_dvc(root, new)
    return Fetched(path, "folder", new.md5, "match")


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or any(c not in _NAME for c in name):
        raise MeguError(f"data.name: {name!r} cannot name a data set", "use letters, digits, '.', '_' and '-'")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def status(root: Path) -> list[State]:
    """Every data set that is pinned, registered or under ``data/``, compared with its pin; changes nothing."""
    pinned = pins.read(root)
    here = {path.name for path in (root / "data").glob("[!.]*") if path.is_dir()}
    return [_state(root, name, pinned.get(name)) for name in sorted({*pinned, *SOURCES, *here})]


def _state(root: Path, name: str, pin: DirHash | None) -> State:
    path = root / "data" / name
    expected = pin.md5 if pin else None
    if not path.is_dir():
        return State(name, "missing", expected, None)
    actual = pins.hash_dir(path, root).md5
    if expected not in (None, actual):
        return State(name, "differs", expected, actual)
    try:
        arrays.load(path)
    except MeguError:
        return State(name, "damaged", expected, actual)
    return State(name, "ok" if expected else "unpinned", expected, actual)
