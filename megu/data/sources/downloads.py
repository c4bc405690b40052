"""Data sets that are fetched by name: where their files come from, and how they become our arrays."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.plugins import plugins
from megu.core.progress import track
from megu.data import arrays
from megu.data.arrays import Dataset
from megu.data.sources import cifar
from megu.data.sources.idx import read_idx
from megu.data.writing import is_disk_full

_REACH_S = 2.0
_SOCKET_S = 10.0
_APT_S = 300.0


class Unavailable(Exception):
    """This provider cannot deliver the data set here; the next one may. The message is a few words."""


_FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


#: The class names of a data set, known before it is fetched.
CLASSES = {
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
}


def _write_fashion_mnist(folder: Path) -> Callable[[Path], Dataset]:
    """Read the four IDX files in ``folder``; the returned function writes the data set."""
    try:
        idx = [read_idx(folder / f"{name}.gz") for name in _FASHION_MNIST_FILES]
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
    # Check this first, because it is cheap: importing torchvision takes seconds, and its own download retries and prints.
    with _torchvision(f"{_FASHION_MNIST_MIRROR}{_FASHION_MNIST_FILES[-1]}.gz", "fashion-mnist") as torchvision:
        torchvision.datasets.FashionMNIST(str(scratch), download=True)
    return _write_fashion_mnist(scratch / "FashionMNIST" / "raw")


_CIFAR_MIRROR = "https://www.cs.toronto.edu/~kriz/"


def _cifar_from_torchvision(name: str, scratch: Path) -> Callable[[Path], Dataset]:
    with _torchvision(f"{_CIFAR_MIRROR}{CIFAR_FILES[name]}", name) as torchvision:
        return cifar.read(torchvision, name, scratch)


CIFAR_FILES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def cifar_from_archive(name: str, archive: Path, scratch: Path) -> Callable[[Path], Dataset]:
    """Read the authors' archive, which torchvision accepts as its own download when the checksum is right."""
    shutil.copyfile(archive, scratch / CIFAR_FILES[name])
    with _torchvision(None, name) as torchvision:
        return cifar.read(torchvision, name, scratch)


@contextlib.contextmanager
def _torchvision(mirror: str | None, name: str) -> Iterator[Any]:
    """Import torchvision, quietly and with a time limit; try to reach ``mirror`` first. An error in the block raises `Unavailable`."""
    if mirror and (reason := _unreachable(mirror)):
        raise Unavailable(reason)
    try:
        from megu.core.vision import import_torchvision

        torchvision = import_torchvision()
    except Exception as error:
        raise Unavailable(f"it cannot be imported ({error})") from error
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SOCKET_S)
    try:
        noise = io.StringIO()
        with track(f"download {name}"), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            yield torchvision
    except (OSError, RuntimeError, ValueError) as error:
        if is_disk_full(error):
            raise
        raise Unavailable(f"the download failed ({' '.join(str(error).split())})") from error
    finally:
        socket.setdefaulttimeout(timeout)


def _unreachable(url: str) -> str:
    """Return why ``url`` does not answer within `_REACH_S` seconds, or "" when it does.

    It is tried in a thread, because a name lookup has no timeout.
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


_PACKAGE = "dataset-fashion-mnist"
_PACKAGE_FILES = Path("usr/share/datasets/fashion-mnist")


def _fashion_mnist_from_os_package(scratch: Path) -> Callable[[Path], Dataset]:
    """Read the files of the Debian package: installed, or downloaded and unpacked into ``scratch``, which needs no root."""
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
    """Run ``apt-get download``; where the system's package lists are absent or stale, run it again with lists of our own."""
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


Source = Callable[[Path], Callable[[Path], Dataset]]

#: Data set -> provider -> function that obtains the raw files in a scratch folder and returns the function that writes the data
#: set. To add a data set, add an entry here and a pin.
SOURCES: dict[str, dict[str, Source]] = {
    "fashion-mnist": {
        "torchvision": _fashion_mnist_from_torchvision,
        "os-package": _fashion_mnist_from_os_package,
    },
    "cifar10": {"torchvision": partial(_cifar_from_torchvision, "cifar10")},
    "cifar100": {"torchvision": partial(_cifar_from_torchvision, "cifar100")},
}

DEFAULT = "fashion-mnist"

#: Data set -> the data set from which it is made by labelling by superclass.
COARSE_OF = {"cifar20": "cifar100"}

BY_NAME = {*SOURCES, *COARSE_OF}

#: The entry point group through which other packages provide data sets: functions like those of `SOURCES`.
GROUP = "megu.datasets"

_LOCAL = "name a local copy: `megu data fetch {name} --from FILE` (its authors' archive, or class folders)"
FIXES = {
    "fashion-mnist": f"connect to the network, or install the package {_PACKAGE}, or configure a DVC remote that has it",
    **{name: f"connect to the network, or {_LOCAL.format(name=name)}" for name in ("cifar10", "cifar100", "cifar20")},
}


def names() -> list[str]:
    """Return every data set that can be fetched by name."""
    return sorted({*SOURCES, *COARSE_OF, *plugins(GROUP, {*SOURCES, *COARSE_OF})})


def providers_for(name: str) -> dict[str, Source]:
    """Return the providers that may have a data set, in the order in which they are tried; empty for an unknown name.

    Raises `MeguError` for a plugin that cannot be used.
    """
    if name in SOURCES or name in COARSE_OF:
        return SOURCES.get(name, {})
    if plugin := plugins(GROUP, {*SOURCES, *COARSE_OF}).get(name):
        return {plugin.distribution: plugin.load(lambda found: "" if callable(found) else "not a function of a scratch folder")}
    return {}
