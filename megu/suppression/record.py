"""One record of a suppression list: samples that were erased together, and facts about them.

A record is one line of canonical JSON (`Header`), followed by as many bytes as that line says. The bytes are a nonce (12) and, encrypted with
AES-256-GCM with the line as associated data, ``exact`` commitments of 32 bytes, then ``near`` hashes of 12 (`megu.data.images.near`), each
sorted. The key is HMAC-SHA256(key of the commitments, ``CONTEXT``). A list is a sequence of records in any order. Without the key, a record
reveals what its line says and nothing else; with the key one can test images, and learns 96 bits about each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.data.images import near
from megu.lineage.commitments import SIZE, commit, fingerprint
from megu.lineage.keys import decrypted, encrypted

#: Incremented when the contents of a record change.
FORMAT = 1
CONTEXT = b"megu suppression list 1"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The part of a record that anybody can read.

    id: "s" and 16 hex characters. erased: when (UTC). requests: ids of the requests that were fulfilled. runs: the MLflow runs that forgot.
    data: the data set's name. shape: height, width and channels of its images. samples: how many were erased. exact, near: how many
    commitments and hashes of them are stored. until: the last day on which the record counts, None for ever. key: fingerprint of the key.
    bytes: how many follow the line.
    """

    format: int
    id: str
    erased: str
    requests: list[str]
    runs: list[str]
    data: str
    shape: list[int]
    samples: int
    exact: int
    near: int
    until: str | None
    key: str
    bytes: int

    def expired(self, today: date) -> bool:
        return self.until is not None and self.until < today.isoformat()

    def __str__(self) -> str:
        """Return who asked and when it was done: "by r0123456789abcdef, on 2026-11-27"."""
        by = ", ".join(self.requests or [f"run {run}" for run in self.runs])
        return f"by {by}, on {self.erased[:10]}"


@dataclass(frozen=True)
class Record:
    """A record as it is stored. content: the encrypted bytes."""

    header: Header
    content: bytes

    def to_bytes(self) -> bytes:
        return _line(self.header) + self.content

    def opened(self, key: bytes) -> tuple[list[bytes], near.Hashes]:
        """Return the commitments, and the hashes uint8 (near, 12). Raises `MeguError` for a wrong key, or when anything was changed."""
        plain = decrypted(_own_key(key), self.content, _line(self.header)) if fingerprint(key) == self.header.key else None
        cut = self.header.exact * SIZE
        if plain is None or len(plain) != cut + self.header.near * near.SIZE:
            raise MeguError(
                f"the suppression record {self.header.id} does not open",
                "use the commitments.key that it was made with, and a record as megu wrote it",
            )
        hashes = np.frombuffer(plain, dtype=np.uint8, offset=cut).reshape(-1, near.SIZE)
        return [plain[start : start + SIZE] for start in range(0, cut, SIZE)], hashes


def made(key: bytes, commitments: Iterable[bytes], hashes: near.Hashes, **facts: Any) -> Record:
    """Make a new record. facts: the fields of `Header` not computed here (erased, requests, runs, data, shape, samples, until)."""
    exact, rows = sorted(set(commitments)), np.unique(hashes, axis=0)
    plain = b"".join(exact) + rows.tobytes()
    name = commit(key, canonical_json(["suppression", facts]) + plain).hex()[:16]
    header = Header(
        format=FORMAT,
        id=f"s{name}",
        exact=len(exact),
        near=len(rows),
        key=fingerprint(key),
        bytes=len(plain) + len(encrypted(b"k" * 32, b"", b"")),
        **facts,
    )
    return Record(header, encrypted(_own_key(key), plain, _line(header)))


def parse(content: bytes, where: str) -> list[Record]:
    """Read the records of a list. Raises `MeguError` for a file that is not a list, is cut off, or was made by a newer megu."""
    found, at = list[Record](), 0
    while at < len(content):
        end = content.find(b"\n", at) + 1
        try:
            value = json.loads(content[at:end])
            if value["format"] > FORMAT:
                raise MeguError(
                    f"{where} has format {value['format']}, and this megu knows up to {FORMAT}", "use the newer megu"
                )
            header = Header(**value)
            at = end + header.bytes
            if not end or _line(header) != content[end - len(_line(header)) : end] or at > len(content):
                raise ValueError("cut off")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise MeguError(f"{where} is not a suppression list, or is cut off or changed", "get the file again") from None
        found.append(Record(header, content[end:at]))
    return found


def _line(header: Header) -> bytes:
    return canonical_json(asdict(header)) + b"\n"


def _own_key(key: bytes) -> bytes:
    return commit(key, CONTEXT)
