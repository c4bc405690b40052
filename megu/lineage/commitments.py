"""Commitments to samples: whoever holds the key and a sample can tell whether it is the one meant; nobody else can.

An id is a hash of an image, and hashing is not anonymisation: whoever has the image can compute the hash. A commitment is
HMAC-SHA256(key, id) under a random key that stays in the project.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megu.core.stages import PRIVATE

SIZE = 32


def commit(key: bytes, sample: bytes) -> bytes:
    """Return the commitment to one sample: 32 bytes."""
    return hmac.digest(key, sample, "sha256")


def commit_all(key: bytes, samples: Iterable[bytes]) -> bytes:
    """Return the commitments to samples, deduplicated, sorted and concatenated."""
    return b"".join(sorted({commit(key, sample) for sample in samples}))


def redact(key: bytes, names: Sequence[str]) -> list[str]:
    """Return sorted commitments in hex, to replace ids and file names that may not be written down."""
    return sorted(commit(key, name.encode()).hex() for name in names)


def redact_parts(parts: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """Return the parts of a cache key with commitments in place of sample names. Parts that already hold commitments stay unchanged:
    a commitment is 64 hex characters, an id 32, and a file name has a suffix."""

    def named(value: Sequence[str]) -> bool:
        return not all(re.fullmatch(r"[0-9a-f]{64}", entry) for entry in value)

    return {name: redact(key, value) if name in PRIVATE and named(value) else value for name, value in parts.items()}


def fingerprint(key: bytes) -> str:
    """Return a name for a key that does not reveal it."""
    return commit(key, b"megu: which key is this").hex()[:16]


def holds(path: Path, commitment: bytes) -> bool:
    """Return whether a file of sorted commitments contains this one; only a few of them are read."""
    low, high = 0, path.stat().st_size // SIZE
    with path.open("rb") as file:
        while low < high:
            middle = (low + high) // 2
            file.seek(middle * SIZE)
            found = file.read(SIZE)
            if found == commitment:
                return True
            low, high = (middle + 1, high) if found < commitment else (low, middle)
    return False
