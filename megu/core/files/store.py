"""Content-addressed files: the files of a stage are stored under their SHA-256 and named by a small JSON reference.

A file is written under a temporary name, flushed to disk and renamed, so a reader never sees half of one; it is hashed again
whenever it is read, so damage is detected and not passed on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files import temporary

if TYPE_CHECKING:  # the command line imports the store, and answers --help without NumPy
    import numpy as np


@dataclass(frozen=True)
class Ref:
    """A stored file: ``kind`` is its suffix ("safetensors", "json", "png", …), ``size`` its length in bytes."""

    kind: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ref:
        return cls(str(value["kind"]), str(value["sha256"]), int(value["size"]))


class Missing(Exception):
    """A referenced file is missing, or differs from what was stored."""


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def without_nan(value: Any) -> Any:
    """Return a copy of a JSON value in which NaN and infinities are None: JSON cannot express them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: without_nan(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return value


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` when the block succeeds, and is removed when it fails.

    Raises `MeguError` when the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.file(target.parent, ".writing-") as path:
            yield path
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            path.replace(target)
    except OSError as error:
        if (refused := _explained(error, target)) is None:
            raise
        raise refused from error


def _explained(error: OSError, target: Path) -> MeguError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MeguError(
            f"the disk is full: {target} could not be written", f"free some space on the disk of {target.parent}, run again"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return MeguError(f"{target} cannot be written ({error.strerror})", "make its folder writable, run again")
    return None


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its metadata entries in order: the library writes them in a different order each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:end])
    if len(head.get("__metadata__", ())) < 2:
        return content
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


@dataclass(frozen=True)
class Store:
    """The files under ``root``, each at ``<first two digits>/<sha256>.<kind>``."""

    root: Path

    def path(self, ref: Ref) -> Path:
        """Return where the file belongs, without checking anything. See `checked`."""
        return self.root / ref.sha256[:2] / f"{ref.sha256}.{ref.kind}"

    def put_bytes(self, kind: str, content: bytes) -> Ref:
        ref = Ref(kind, hashlib.sha256(content).hexdigest(), len(content))
        if not self.holds(ref):
            with writing(self.path(ref)) as path:
                path.write_bytes(content)
        return ref

    def put_json(self, value: object) -> Ref:
        return self.put_bytes("json", canonical_json(value))

    def put_file(self, source: Path, kind: str | None = None) -> Ref:
        """Copy a file in."""
        ref = Ref(kind or source.suffix.lstrip("."), sha256_file(source), source.stat().st_size)
        if not self.holds(ref):
            with writing(self.path(ref)) as path:
                shutil.copyfile(source, path)
        return ref

    def put_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]], meta: Mapping[str, str] | None = None) -> Ref:
        """Store named arrays as one safetensors file (numbers only: no pickle, no code)."""
        import numpy as np
        from safetensors.numpy import save

        contiguous = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
        return self.put_bytes("safetensors", _in_order(save(contiguous, metadata=dict(meta) if meta else None)))

    def holds(self, ref: Ref) -> bool:
        """Whether the file exists and its content matches the reference."""
        path = self.path(ref)
        try:
            return path.stat().st_size == ref.size and sha256_file(path) == ref.sha256
        except OSError:
            return False

    def find(self, kind: str, sha256: str) -> Ref | None:
        """Return the reference of a stored file by its hash; None when it is missing or damaged."""
        path = self.path(Ref(kind, sha256, 0))
        ref = Ref(kind, sha256, path.stat().st_size) if path.is_file() else None
        return ref if ref and self.holds(ref) else None

    def checked(self, ref: Ref) -> Path:
        """Return the path of a file that has just been hashed. Raises `Missing`."""
        if not self.holds(ref):
            raise Missing(f"{self.path(ref)} is missing or damaged")
        return self.path(ref)

    def json(self, ref: Ref) -> Any:
        return json.loads(self.checked(ref).read_bytes())

    def arrays(self, ref: Ref) -> dict[str, np.ndarray[Any, Any]]:
        from safetensors.numpy import load_file

        loaded: dict[str, np.ndarray[Any, Any]] = load_file(self.checked(ref))
        return loaded
