"""The surfaces of a project: everywhere that a forgotten sample, or something made of it, may lie."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megu.errors import MeguError
from megu.project import Project

#: In the order in which a verdict names them.
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

#: Where the purge itself works; gone when it is done.
JOURNAL = "purge"
#: Folders that hold programs, not data. What git keeps is looked at by nobody: see docs/erasure.md.
_PASSED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
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
    """A DVC remote. folder: where it is on a disk of ours; None for one elsewhere."""

    name: str
    url: str
    folder: Path | None

    @property
    def there(self) -> bool:
        return self.folder is not None and self.folder.is_dir()


def dvc_config(root: Path) -> configparser.ConfigParser:
    """The project's DVC configuration, the local one over the shared one.

    Raises `MeguError` when it cannot be read: a remote might be missed.
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    except configparser.Error as error:
        raise MeguError(
            f".dvc/config cannot be read ({str(error).splitlines()[0]})", "mend it: it says which remotes there are"
        ) from None
    return parser


def remotes(root: Path) -> list[Remote]:
    """The configured DVC remotes, by name."""
    found, parser = [], dvc_config(root)
    for section in parser.sections():
        name = section.strip("'\"")
        if name.startswith('remote "'):
            url = parser[section].get("url", "")
            plain = url.removeprefix("file://")
            folder = None if "://" in plain or not plain else (root / ".dvc" / plain)
            found.append(Remote(name.removeprefix('remote "').rstrip('"'), url, folder))
    return sorted(found, key=lambda remote: remote.name)


def cache(root: Path) -> Path:
    """DVC's cache, where the configuration puts it."""
    parser = dvc_config(root)
    named = parser["cache"].get("dir") if parser.has_section("cache") else None
    return root / ".dvc" / (named or "cache")


def files(project: Project, extra: Sequence[tuple[str, Path]] = ()) -> Iterator[tuple[str, Path]]:
    """Every file of every surface that is on a disk of ours, each once. extra: folders elsewhere, with their surface."""
    folders = [(_surface, path) for _surface, path in ((CACHE, cache(project.root)), *extra)]
    folders += [(REMOTES, remote.folder) for remote in remotes(project.root) if remote.folder is not None]
    elsewhere = [(surface, path.resolve()) for surface, path in folders if path.is_dir()]
    seen: set[Path] = set()
    for surface, folder in [*elsewhere, ("", project.root.resolve())]:
        for path in _walk(folder, project):
            if path not in seen:
                seen.add(path)
                yield surface or surface_of(project, path), path


def _walk(folder: Path, project: Project) -> Iterator[Path]:
    """Links to folders are followed below ``data/`` only, where a data set may be one."""
    passed = {project.keys.resolve(), (project.home / JOURNAL).resolve()}
    for here, names, files in os.walk(folder, followlinks=folder.name == "data"):
        names[:] = sorted(name for name in names if name not in _PASSED and Path(here, name) not in passed)
        if Path(here) == project.root.resolve():
            linked = [
                Path(here, "data", name) for name in (os.listdir(Path(here, "data")) if Path(here, "data").is_dir() else [])
            ]
            for link in (path for path in linked if path.is_symlink() and path.is_dir()):
                yield from (file for file in sorted(link.rglob("*")) if file.is_file())
        for name in sorted(files):
            path = Path(here, name)
            if path.is_file() and not path.is_symlink():
                yield path


def surface_of(project: Project, path: Path) -> str:
    """The surface of a file below the project's root."""
    parts = path.relative_to(project.root.resolve()).parts
    if parts[0] == ".megu":
        if parts[1].startswith("mlflow.db"):
            return TRACKED
        return _HOME.get(parts[1], LEFTOVERS)
    if parts[:2] == (".dvc", "cache"):
        return CACHE
    if parts[:2] == ("results", "dossiers"):
        return DOSSIERS
    first = {"data": DATA, "splits": SPLITS, "results": REPORTS, ".dvc": LEFTOVERS}
    return first.get(parts[0], OTHERS) if len(parts) > 1 else OTHERS
