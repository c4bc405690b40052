"""Where data sets come from: a chain of providers that all give the same bytes.

`fetch` tries, in order, what is already there, DVC (cache or remote), and the sources registered in `SOURCES`; the result is
compared with its pin before it takes its place under ``data/``. `add` makes a data set from a user's own images.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from megu.core.errors import MeguError
from megu.core.files import temporary
from megu.core.files.exclusion import unfinished, working
from megu.core.files.locks import file_lock
from megu.core.progress import track
from megu.core.project import Project
from megu.data import advice, arrays, dvc, pins
from megu.data.arrays import Dataset, Facts
from megu.data.images import folders as images
from megu.data.images.clutter import hide_from_dvc
from megu.data.images.notes import Notes
from megu.data.images.packing import Packing
from megu.data.images.repeats import repeat_lines
from megu.data.pins import DirHash
from megu.data.sources import cifar
from megu.data.sources.downloads import (
    BY_NAME,
    CIFAR_FILES,
    COARSE_OF,
    DEFAULT,
    FIXES,
    Unavailable,
    cifar_from_archive,
    names,
    providers_for,
)
from megu.data.writing import write_errors_answered

Pin = Literal["match", "unpinned"]

#: Inspects a data set's folder before it is used: removes what must not be in it, or refuses it (`MeguError`). Returns what to report, one
#: line each. The product uses `megu.suppression.screening.screen`.
Screen = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Fetched:
    """A data set in place.

    Attributes
    ----------
    dataset_path: ``<root>/data/<name>``.
    provider: where it came from: "local" (already there), "dvc", "torchvision", "os-package" or "folder".
    dvc_hash: DVC's directory hash (36 characters, ending in ".dir").
    pin: "match", or "unpinned" when ``data.dvc`` does not have the name. A mismatch is an error.
    notes: what was left out of a user's images and what was done to them, one line each.
    """

    dataset_path: Path
    provider: str
    dvc_hash: str
    pin: Pin
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """One line of `status`: ``state`` is "ok", "unpinned", "differs" (from the pin), "damaged" or "missing".

    notes: what to do about it, and the images that occur twice, one line each.
    """

    name: str
    state: Literal["ok", "unpinned", "differs", "damaged", "missing"]
    expected: str | None
    actual: str | None
    notes: tuple[str, ...] = ()


def unscreened(folder: Path) -> list[str]:
    """Accept any data set unchanged."""
    return []


def fetch(root: Path, name: str, local: Sequence[Path] = (), screen: Screen = unscreened) -> Fetched:
    """Put data set ``name`` into ``<root>/data/<name>`` and compare it with its pin. Safe to run twice at once.

    local: a copy that the user has: the authors' archive of CIFAR, or class folders in folders and archives; then nothing else is tried.

    Raises
    ------
    MeguError: the name is unknown, no provider works (each is named with its reason), the bytes differ or are damaged, ``screen`` refuses
    the data set, the disk is full, or a purge was stopped half-way.
    """
    path = root / "data" / name
    _check_name(name)
    with write_errors_answered(path), working(Project(root)), file_lock(root / ".megu" / "data.lock"):
        no_purge_is_open(root)
        pin = pins.read(root).get(name)
        if path.exists():
            fetched = _check_in_place(root, path, "local", screen)
        else:
            _remove_leftovers(root)
            fetched = _obtain(root, name, pin, local, screen)
        pin = pins.read(root).get(name)  # a version without what was left out is pinned anew
    _share_with_dvc(root, pin)
    return fetched


def no_purge_is_open(root: Path) -> None:
    """Raise `MeguError` where a purge was stopped half-way: the data are then a mixture of two versions."""

    if unfinished(Project(root)):
        raise MeguError(
            "a purge was stopped half-way, and what it is to erase is still here", "finish it: `megu purge --apply`"
        )


def _check_in_place(root: Path, path: Path, provider: str, screen: Screen) -> Fetched:
    """Run `_check` on a folder in its final place, which the screen may have replaced and pinned anew."""
    notes = screen(path)
    return replace(_check(root, path, pins.read(root).get(path.name), provider), notes=tuple(notes))


def _obtain(root: Path, name: str, pin: DirHash | None, local: Sequence[Path], screen: Screen) -> Fetched:
    path, notes = root / "data" / name, Notes()
    failures = []
    if pin is not None and not local:
        try:
            _from_dvc(root, name, pin)
            return _check_in_place(root, path, "dvc", screen)
        except Unavailable as reason:
            failures.append(f"dvc: {reason}")
    if name in COARSE_OF:
        return _by_superclass(root, name, pin, local, screen)
    for provider, source in ({"file": partial(_from_local, name, local, notes)} if local else providers_for(name)).items():
        try:
            with tempfile.TemporaryDirectory(prefix="megu-data-") as scratch:
                write = source(Path(scratch))
                with _staged(path) as staged:
                    write(staged)
                    notes.remarks += screen(staged)
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


def _by_superclass(root: Path, name: str, pin: DirHash | None, local: Sequence[Path], screen: Screen) -> Fetched:
    """Make a data set that is another one labelled by superclass; fetch that one first where it is absent."""
    base = COARSE_OF[name]
    if not (root / "data" / base).exists():
        _obtain(root, base, pins.read(root).get(base), local, screen)
    dataset = arrays.load(root / "data" / base)
    if dataset.coarse is None and dataset.classes == cifar.KINDS[base].classes:
        dataset = replace(dataset, coarse=cifar.KINDS[base].coarse)
    with _staged(root / "data" / name) as staged:
        arrays.save_view(staged, arrays.coarse_view(dataset), name)
        notes = screen(staged)
        fetched = _check(root, staged, pin, base)
    return Fetched(root / "data" / name, base, fetched.dvc_hash, fetched.pin, tuple(notes))


def _from_local(name: str, local: Sequence[Path], notes: Notes, scratch: Path) -> Callable[[Path], Dataset]:
    """Read the user's copy: the archive of CIFAR's authors, recognised by its file name, or class folders."""
    if len(local) == 1 and local[0].name == CIFAR_FILES.get(name) and local[0].is_file():
        return cifar_from_archive(name, local[0], scratch)
    facts, packing = _known(name, Facts(name, ()), Packing())
    return lambda path: images.pack(path, local, facts, packing, described=name not in BY_NAME, notes=notes)


def _known(name: str, facts: Facts, packing: Packing) -> tuple[Facts, Packing]:
    """Fill in source, licence and superclasses of a data set that we know by name, where they are not specified."""
    kind = cifar.KINDS.get(COARSE_OF.get(name, name))
    if kind is None:
        return facts, packing
    known = kind.facts(name)
    facts = replace(facts, source=facts.source or known.source, licence=facts.licence or known.licence)
    return facts, replace(packing, superclasses=packing.superclasses or kind.superclasses)


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Yield a place to build ``path`` so that it appears only when the block, including its comparison, succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.folder(path.parent, f".{path.name}-") as scratch:
        yield scratch / path.name
        (scratch / path.name).rename(path)


#: The form of `tempfile`'s folder names.
_LEFTOVER = re.compile(r"\.[A-Za-z0-9._-]+-[a-z0-9_]{8}")


def _remove_leftovers(root: Path) -> None:
    """Delete what a killed fetch left, by any version of megu; called under the lock, so no fetch is running."""
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
            "if the new data are right, change the pin in data.dvc; otherwise report where they came from",
        )
    arrays.load(path)
    return Fetched(path, provider, actual.md5, "unpinned" if pin is None else "match")


def _share_with_dvc(root: Path, pin: DirHash | None) -> None:
    """Add a data set that came another way to DVC's cache; otherwise ``dvc status`` calls it "not in cache".

    DVC can only commit ``data.dvc`` as a whole, so this waits until every pinned data set is there. The data are usable without
    it, so a failure of DVC is ignored.
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


# --- a user's own data -------------------------------------------------------------------------------------------------------


def add(
    root: Path,
    source: Path | Sequence[Path],
    name: str,
    *,
    source_name: str = "",
    licence: str = "",
    packing: Packing | None = None,
    screen: Screen = unscreened,
) -> Fetched:
    """Make data set ``name`` from class folders (see `megu.data.images.folders.pack`) and pin it in ``data.dvc``.

    Adding the same images again changes nothing.

    Raises
    ------
    MeguError: the name is not a plain folder name or is taken by other data, the images cannot be used, ``screen`` refuses them, or the
    disk is full.
    """
    _check_name(name)
    path, notes = root / "data" / name, Notes()
    facts, packing = _known(name, Facts(name, (), None, source_name, licence), packing or Packing())
    with (
        write_errors_answered(path),
        working(Project(root)),
        file_lock(root / ".megu" / "data.lock"),
        contextlib.ExitStack() as stack,
    ):
        pin = pins.read(root).get(name)
        stack.callback(_remove_if_empty, path.parent)
        with temporary.folder(_folder(path.parent), f".{name}-") as scratch:
            staged = scratch / name
            found = images.pack(staged, source, facts, packing, described=name not in BY_NAME, notes=notes)
            kind = cifar.KINDS.get(COARSE_OF.get(name, name))
            if kind and (found.fine or found.classes) != kind.classes:
                raise MeguError(f"these images do not have the classes of {name}", "choose another --name")
            notes.remarks += screen(staged)
            new = pins.hash_dir(staged)
            if path.exists() and _same_samples(path, staged):
                new = pins.hash_dir(path, root)
            old = pins.hash_dir(path, root).md5 if path.exists() else pin.md5 if pin else new.md5
            if {old, pin.md5 if pin else old} != {new.md5}:
                raise MeguError(
                    f"data set {name!r} exists with other contents ({old}; these images give {new.md5})",
                    "choose another --name"
                    if path.exists()
                    else "add the images that it was made from, or choose another --name",
                )
            if not path.exists():
                staged.rename(path)
        pins.write(root, name, new)
    _share_with_dvc(root, new)
    return Fetched(path, "folder", new.md5, "match", (*notes.lines(), *repeat_lines(arrays.load(path))))


def _same_samples(one: Path, other: Path) -> bool:
    """Return whether two data sets have the same samples, whatever was ignored or converted when they were made."""
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
    """Compare every data set that is pinned or under ``data/``, and the default one, with its pin; change nothing."""
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
