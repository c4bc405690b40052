"""Pins: which bytes a data set must have.

``data.dvc`` is an ordinary DVC file with one output for each data set. `hash_dir` computes the same hash as DVC, without DVC.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from hashlib import md5
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.files import temporary
from megu.core.progress import track
from megu.core.settings import merging
from megu.data.images.clutter import is_known_clutter

FILE = "data.dvc"
_MEMO = Path(".megu") / "hashes.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DirHash:
    """What DVC records for a folder: ``md5`` (ending in ".dir"), total ``size`` in bytes and number of files."""

    md5: str
    size: int
    nfiles: int


def files_of(path: Path) -> dict[str, Path]:
    """Return the files of a folder that DVC hashes, by relative path: without the system clutter that ``.dvcignore`` lists."""
    found = ((file.relative_to(path), file) for file in path.rglob("*") if file.is_file())
    return {relative.as_posix(): file for relative, file in found if not is_known_clutter(relative.parts)}


def hash_dir(path: Path, root: Path | None = None, only: Collection[str] | None = None) -> DirHash:
    """Return DVC's hash of a folder: the MD5 of the JSON list of its files' MD5s and relative paths. only: the files to include.

    With ``root`` (a project) the hash of each file is cached in ``<root>/.megu`` while its inode, size and times stay the same.

    Raises
    ------
    MeguError: the folder does not exist.
    """
    if not path.is_dir():
        raise MeguError(f"{path} is not a folder", "run `megu data fetch`")
    memo = _Memo(root)
    files = sorted((name, file) for name, file in files_of(path).items() if only is None or name in only)
    sizes = [file.stat().st_size for _, file in files]
    with track(f"hash {path.name}", total=sum(sizes), unit="bytes") as advance:
        listing = []
        for (relpath, file), size in zip(files, sizes, strict=True):
            listing.append({"md5": memo.md5(file), "relpath": relpath})
            advance(size)
    memo.save()
    digest = md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return DirHash(f"{digest}.dir", sum(sizes), len(files))


class _Memo:
    """File hashes by path, valid while the file looks unchanged. A lost or damaged memo only costs time."""

    def __init__(self, root: Path | None) -> None:
        self.file = None if root is None else root / _MEMO
        self.known: dict[str, Any] = {}
        self.changed = False
        try:
            if self.file is not None:
                self.known = dict(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass

    def md5(self, path: Path) -> str:
        stat = path.stat()
        looks = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        key = os.path.abspath(path)
        match self.known.get(key):
            case [seen, str(digest)] if seen == looks:
                return digest
        digest = _file_md5(path)
        self.known[key] = [looks, digest]
        self.changed = True
        return digest

    def save(self) -> None:
        if self.file is None or not self.changed:
            return
        temporary = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            kept = {key: value for key, value in self.known.items() if os.path.exists(key)}
            temporary.write_text(json.dumps(kept), encoding="utf-8")
            temporary.replace(self.file)
        except OSError:
            temporary.unlink(missing_ok=True)


def _file_md5(path: Path) -> str:
    digest = md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read(root: Path) -> dict[str, DirHash]:
    """Return the pinned data sets of a project by name; empty without a ``data.dvc``.

    Raises
    ------
    MeguError: the file is not a DVC file.
    """
    return {Path(out["path"]).name: DirHash(out["md5"], out["size"], out["nfiles"]) for out in _outs(root)}


def paths(root: Path) -> list[str]:
    """Return the folders that ``data.dvc`` tracks, relative to the project. Raises `MeguError` as `read` does."""
    return [str(out["path"]) for out in _outs(root)]


def write(root: Path, name: str, pin: DirHash) -> None:
    """Pin a data set, leaving the others as they are."""
    import yaml

    path = f"data/{name}"
    outs = [out for out in _outs(root) if out["path"] != path] + [{**asdict(pin), "hash": "md5", "path": path}]
    text = yaml.safe_dump({"outs": sorted(outs, key=lambda out: str(out["path"]))}, sort_keys=False)
    with temporary.file(root, f".{FILE}.") as written:
        written.write_text(text, encoding="utf-8")
        written.chmod((root / FILE).stat().st_mode & 0o777 if (root / FILE).exists() else 0o644)  # everybody may read it
        written.replace(root / FILE)


def _outs(root: Path) -> list[dict[str, Any]]:
    import yaml

    path = root / FILE
    if not path.is_file():
        return []
    try:
        outs = yaml.safe_load(merging.read_text(path))["outs"]
        for out in outs:
            DirHash(str(out["md5"]), int(out["size"]), int(out["nfiles"])), str(out["path"])
        return list(outs)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise MeguError(
            f"{path} is not a DVC file with pinned folders ({error!r})", f"restore it with `git checkout {FILE}`"
        ) from error
