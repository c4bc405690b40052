"""The surfaces of a project: every place where a forgotten sample, or something made from it, may lie."""

from __future__ import annotations

import configparser
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from megu.core.errors import MeguError
from megu.core.files.exclusion import JOURNAL, unfinished
from megu.core.project import Project
from megu.data import dvc

#: In the order in which a verdict lists them.
SURFACES = (
    "data set",
    "splits",
    "DVC cache",
    "DVC remotes",
    "content store",
    "kept results",
    "checkpoints",
    "Prefect",
    "MLflow runs",
    "MLflow artifacts",
    "model versions",
    "label answers",
    "reports",
    "dossiers",
    "other files of megu",
    "your own files",
)
DATA, SPLITS, CACHE, REMOTES, STORE, RESULTS, CHECKPOINTS, PREFECT = SURFACES[:8]
TRACKED, ARTIFACTS, VERSIONS, ANSWERS, REPORTS, DOSSIERS, LEFTOVERS, OTHERS = SURFACES[8:]

#: Seconds within which a remote's server has to accept a connection.
REACH_S = 2.0
#: Default ports, for the servers of remotes whose address has no port.
_PORTS = {"http": 80, "https": 443, "webdav": 80, "webdavs": 443, "ssh": 22, "hdfs": 8020, "webhdfs": 9870}
_FIX = "bring it back, or `dvc remote remove {}`"
#: Folders that hold programs, not data. What git stores is not searched: see docs/erasure.md.
PASSED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
#: First part of a path below the home -> its surface.
_HOME = {
    "store": STORE,
    "results": RESULTS,
    "checkpoints": CHECKPOINTS,
    "prefect": PREFECT,
    "mlartifacts": ARTIFACTS,
    "answers": ANSWERS,
}


@dataclass(frozen=True)
class Remote:
    """A DVC remote. folder: its path on a local disk; None for one elsewhere. server: the address to connect to."""

    name: str
    url: str
    folder: Path | None
    server: str

    @property
    def there(self) -> bool:
        return self.folder is not None and self.folder.is_dir()


def _settings(root: Path, option: str) -> dict[str, tuple[str, Path]]:
    """Return section -> an option of DVC's configuration, where a section has it, and the folder that it is relative to. The user's and the
    system's configuration apply to every project; the project's own overrides them, and its local one overrides that.

    Raises `MeguError` when one cannot be read: a remote might be missed.
    """
    found: dict[str, tuple[str, Path]] = {}
    for path in (*dvc.shared_configs(), root / ".dvc" / "config", root / ".dvc" / "config.local"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            named = f".dvc/{path.name}" if path.parent == root / ".dvc" else path
            raise MeguError(
                f"{named} cannot be read ({str(error).splitlines()[0]})", "fix it: it says which remotes there are"
            ) from None
        found |= {
            section.strip("'\""): (parser[section][option], path.parent)
            for section in parser.sections()
            if option in parser[section]
        }
    return found


def remotes(root: Path) -> list[Remote]:
    """Return the configured DVC remotes, sorted by name."""
    found, servers = [], _settings(root, "endpointurl")
    for section, (url, where) in _settings(root, "url").items():
        if section.startswith('remote "'):
            plain = url.removeprefix("file://")
            folder = None if "://" in plain or not plain else Path(os.path.normpath(where / plain))
            server = servers[section][0] if section in servers else url
            found.append(Remote(section.removeprefix('remote "').rstrip('"'), url, folder, server))
    return sorted(found, key=lambda remote: remote.name)


def cache(root: Path) -> Path:
    """Return the folder of DVC's cache, as configured."""
    named, where = _settings(root, "dir").get("cache", ("cache", root / ".dvc"))
    return where / named


def shares_cache(root: Path) -> bool:
    """Return whether DVC's configuration shares the cache between users (``cache.shared group``)."""
    return _settings(root, "shared").get("cache", ("", root))[0].strip() != ""


def missing(remotes: Sequence[Remote], limit: float = REACH_S) -> list[str]:
    """Return what is wrong with remotes, one line each: a folder that is gone, a server that accepts no connection in ``limit`` seconds.

    All are asked at once. An address without a server in it (``s3://bucket``) cannot be checked without its store's own client.
    """
    found: dict[str, str] = {}

    def ask(remote: Remote) -> None:
        found[remote.name] = _missing(remote, limit)

    asking = {remote.name: threading.Thread(target=ask, args=(remote,), daemon=True) for remote in remotes}
    for thread in asking.values():
        thread.start()
    until = time.monotonic() + limit + 0.5  # a name look-up has no timeout
    for name, thread in asking.items():
        thread.join(max(until - time.monotonic(), 0.0))
        found.setdefault(
            name, f"the DVC remote {name} does not answer (the look-up of its name timed out): {_FIX.format(name)}"
        )
    return [line for line in (found[remote.name] for remote in remotes) if line]


def _missing(remote: Remote, limit: float) -> str:
    fix = _FIX.format(remote.name)
    if remote.folder is not None:
        return "" if remote.there else f"the DVC remote {remote.name} is not there ({remote.folder}): {fix}"
    try:
        parsed = urlsplit(remote.server)
        port = parsed.port or _PORTS.get(parsed.scheme)
    except ValueError:
        return f"the DVC remote {remote.name} has no address ({remote.server}): `dvc remote modify {remote.name} url ADDRESS`"
    if not parsed.hostname or port is None:
        return ""
    try:
        socket.create_connection((parsed.hostname, port), timeout=limit).close()
    except OSError as error:
        why = error.strerror or str(error)
        return f"the DVC remote {remote.name} does not answer ({parsed.hostname}:{port}, {why}): {fix}"
    return ""


def files(project: Project, extra: Sequence[tuple[str, Path]] = ()) -> Iterator[tuple[str, Path]]:
    """Yield every file of every surface on a local disk, each once, and every folder that cannot be listed. extra: folders elsewhere, with
    their surface.

    A link to a file is searched at its target. If the target is not searched here, the link itself is, but only in megu's own places.
    """
    folders = [(_surface, path) for _surface, path in ((CACHE, cache(project.root)), *extra)]
    folders += [(REMOTES, remote.folder) for remote in remotes(project.root) if remote.folder is not None]
    root = project.root.resolve()
    elsewhere = [(surface, path.resolve()) for surface, path in folders if path.is_dir()]
    seen: set[Path] = set()
    for surface, folder in [*elsewhere, ("", root)]:
        for path in _walk(folder, project):
            own, real = surface or location_of(project, path), path.resolve()
            linked = path.is_symlink() and (
                own in (DATA, OTHERS) or any(real.is_relative_to(each) for each in (root, *(each for _, each in elsewhere)))
            )
            if not linked and real not in seen:
                seen.add(real)
                yield own, path


def _walk(folder: Path, project: Project) -> Iterator[Path]:
    """Walk a folder. Links to folders are followed where they are megu's own folders, which may be on another disk."""
    passed = {project.keys.resolve()}
    if unfinished(project):  # the remains of a purge that has ended are searched
        passed.add((project.home / JOURNAL).resolve())
    closed: list[OSError] = []
    for here, names, files in os.walk(folder, onerror=closed.append):
        names[:] = sorted(name for name in names if name not in PASSED and Path(here, name).resolve() not in passed)
        for name in names:
            if (path := Path(here, name)).is_symlink() and _is_own(path, project.root.resolve()):
                yield from _walk(path, project)
        yield from (path for path in (Path(here, name) for name in sorted(files)) if path.is_file())
    yield from (Path(error.filename) for error in closed if not isinstance(error, FileNotFoundError))


def _is_own(path: Path, root: Path) -> bool:
    """Return whether a folder is one of megu's own or a data set."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return len(parts) <= 2 and parts[:1] in {(name,) for name in (".megu", "data", "requests", "results", "splits")}


def location_of(project: Project, path: Path) -> str:
    """Return the surface of a file below the project's root."""
    parts = path.relative_to(project.root.resolve()).parts
    if parts[0] == ".megu":
        if parts[1].startswith("mlflow.db"):
            return TRACKED
        return _HOME.get(parts[1], LEFTOVERS)
    if parts[:2] == (".dvc", "cache"):
        return CACHE
    if parts[:2] == ("results", "dossiers"):
        return DOSSIERS
    if parts[0] == "requests" and len(parts) > 1:  # what waits in the inbox still belongs to its sender
        return {"split": SPLITS, "forget.json": LEFTOVERS, "refused": LEFTOVERS}.get(parts[1], OTHERS)
    first = {"data": DATA, "splits": SPLITS, "results": REPORTS, ".dvc": LEFTOVERS}
    return first.get(parts[0], OTHERS) if len(parts) > 1 else OTHERS
