"""DVC's cache and its remotes on a local disk: which of their objects may be removed, and which something else refers to.

An object that anything else refers to is never removed: another pinned data set, a ``.dvc`` file or ``dvc.lock`` here or at git's HEAD, a
link in the project's folder. References from other projects cannot be seen from here, so nothing is removed from a store that others may
use, unless ``purge.shared_stores`` says that only this project uses it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.processes import git
from megu.core.project import Project
from megu.lineage.purged import locations as places

#: Parts of the reasons why an object may not be removed.
_REFERS, _MAY_USE = "refers to it", "other projects may use it"


@dataclass(frozen=True)
class Store:
    """A folder of objects by MD5. shared: why other projects may use it; empty where none is expected to use it."""

    surface: str
    folder: Path
    shared: str


@dataclass(frozen=True)
class Stores:
    """alone: whether the user says that no other project uses the shared ones. references: MD5 -> what refers to it."""

    each: tuple[Store, ...]
    alone: bool
    references: Mapping[str, str] = field(repr=False)

    def of(self, md5: str) -> Iterator[tuple[Store, Path]]:
        """Yield where an object lies, in DVC's present layout and its former one."""
        for store in self.each:
            for path in (store.folder / "files" / "md5" / md5[:2] / md5[2:], store.folder / md5[:2] / md5[2:]):
                if path.is_file():
                    yield store, path

    def store_of(self, path: Path) -> Store | None:
        real = path.parent.resolve() / path.name  # it may be relative to the project, "../cache/…"
        return next((store for store in self.each if real.is_relative_to(store.folder)), None)

    def refers(self, path: Path) -> str:
        """Return what refers to an object; empty when nothing is known to."""
        return self.references.get(path.parent.name + path.name, "")

    def keeps(self, path: Path) -> str:
        """Return why an object may not be removed, in words; empty when it may."""
        if by := self.refers(path):
            return f"{by} {_REFERS}: take it away there, and purge again"
        store = self.store_of(path)
        if store is not None and store.shared and not self.alone:
            return f"{_MAY_USE} ({store.shared}): when none does, purge again with purge.shared_stores=true"
        return ""


def was_retained(why: str) -> bool:
    """Return whether a reason given by a purge is one of `Stores.keeps`."""
    return _REFERS in why or _MAY_USE in why


def find(project: Project, purged: Iterable[str], stays: Iterable[str], alone: bool) -> Stores:
    """Return the stores of a project. purged: data sets whose versions so far are to be erased. stays: MD5s that their new versions share.

    Raises `MeguError` when a file that may refer to objects cannot be read.
    """
    each = tuple(every(project))
    bare = Stores(each, alone, {})
    references = dict.fromkeys(stays, "the data set's new version")
    gone = {f"data/{name}" for name in purged}
    here = ((name, name, content) for name, content in _files_here(project.root))
    committed = ((name, f"{name} at git's HEAD", content) for name, content in _files_at_head(project.root))
    for name, by, content in (*here, *committed):
        for md5, path in _named(content, by):
            if os.path.normpath(os.path.join(os.path.dirname(name), path)) not in gone:
                references |= dict.fromkeys(_members(bare, md5), by)
    return Stores(each, alone, references | _links(project.root, bare, gone))


def every(project: Project) -> Iterator[Store]:
    """Yield DVC's cache and the remotes that are folders."""
    root = project.root.resolve()

    def shared(folder: Path) -> str:
        return "" if folder.is_relative_to(root) else "it is outside of the project's folder"

    cache = places.cache(project.root).resolve()
    yield Store(places.CACHE, cache, "cache.shared is set" if places.shares_cache(project.root) else shared(cache))
    for remote in places.remotes(project.root):
        if remote.folder is not None:
            yield Store(places.REMOTES, remote.folder.resolve(), shared(remote.folder.resolve()))


def _files_here(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield DVC's files in the project's folder, with their relative paths."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in places.PASSED and name not in (".megu", ".dvc")]
        for name in files:
            if _is_dvcs(name):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path.read_bytes()


def _is_dvcs(name: str) -> bool:
    return name == "dvc.lock" or (name.endswith(".dvc") and name != ".dvc")


def _files_at_head(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield DVC's files as committed at HEAD. Raises `MeguError` when git is there and does not answer."""
    if not any((folder / ".git").exists() for folder in (root, *root.resolve().parents)):
        return

    _git(root, "rev-parse", "--git-dir")
    if not _git(root, "rev-list", "--all", "--max-count=1"):
        return  # no commit yet
    for name in _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD").decode().split("\0"):
        if _is_dvcs(os.path.basename(name)):
            yield name, _git(root, "cat-file", "blob", f"HEAD:./{name}")


def _git(root: Path, *arguments: str) -> bytes:
    try:
        return git.ask(root, *arguments, timeout=60)
    except git.Refused as error:
        raise MeguError(
            f"git does not say what is committed ({error})", "fix it: a purge removes nothing that is pinned at HEAD"
        ) from None


def _named(content: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Yield MD5 and path of everything that one of DVC's files names."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        waiting: list[Any] = [yaml.load(content, Loader=loader)]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MeguError(
            f"{where} cannot be read ({' '.join(str(error).split())})", "fix it: it may name what must not be removed"
        ) from None
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
            if isinstance(value.get("md5"), str):
                yield value["md5"], str(value.get("path", ""))


def _members(stores: Stores, md5: str) -> list[str]:
    """Return an object and, where it is the listing of a folder, the objects that it lists."""
    found = [md5]
    if md5.endswith(".dir"):
        for _, path in stores.of(md5):
            try:
                found += [str(entry["md5"]) for entry in json.loads(path.read_bytes())]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged: DVC cannot use it either
    return found


def _links(root: Path, stores: Stores, purged: set[str]) -> dict[str, str]:
    """Return the objects that symbolic links in the project's folder lead to, without those of ``purged``; a data set may itself be a link."""
    found = {}
    linked = [path for path in (root / "data").glob("*") if path.is_symlink() and f"data/{path.name}" not in purged]
    for start in (root, *linked):
        for folder, names, files in os.walk(start):
            inside = Path(folder).relative_to(root).as_posix() not in purged
            names[:] = [name for name in names if inside and name not in places.PASSED]
            for path in (Path(folder, name) for name in files + names if inside):
                if path.is_symlink() and stores.store_of(real := path.resolve()) is not None:
                    found[real.parent.name + real.name] = f"the link {path.relative_to(root).as_posix()}"
    return found
