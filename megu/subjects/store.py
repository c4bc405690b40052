"""Keyed hashes of a table of subjects, ``.megu/subjects/<data set>``: the file alone reveals how many rows it has and nothing else.

A file is one line of canonical JSON (`Header`) followed by, encrypted with AES-256-GCM with the line as associated data, 64 bytes per row,
sorted: the commitment to the subject and the commitment to the sample (`megu.lineage.commitments`). The key is HMAC-SHA256(key of the
commitments, ``CONTEXT``). The ledger knows which data sets have a file, so a file that vanished is an error: requests would miss samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json, writing
from megu.core.project import Project
from megu.lineage.commitments import SIZE, commit, fingerprint
from megu.lineage.keys import Keys, decrypted, encrypted

#: Incremented when the contents of a file change.
FORMAT = 1
CONTEXT = b"megu subjects 1"
#: The kind of the ledger's events; each has a data set's name and counts.
RECORDED = "subjects.recorded"
#: Prefixed to a subject that is committed to, so that one that looks like a sample's id has a different commitment.
_SUBJECT = b"megu subject\0"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The part of a file that anybody can read. rows: pairs of subject and sample. key: fingerprint of the key."""

    format: int
    data: str
    rows: int
    subjects: int
    samples: int
    key: str


class Hashes:
    """The rows of one data set: uint8 (N, 64), sorted, each a commitment to a subject and one to a sample of theirs."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self.rows = rows
        # For searching, the first 8 of 32 bytes are as good as all; the rest is compared.
        self._first = np.ascontiguousarray(rows[:, :8]).view(">u8").ravel().astype(np.uint64)

    @classmethod
    def of(cls, key: bytes, pairs: Iterable[tuple[bytes, str]]) -> Hashes:
        """Make the hashes of pairs of sample id and subject."""
        people, samples = dict[str, bytes](), dict[bytes, bytes]()
        joined = set[bytes]()
        for sample, subject in pairs:
            person = people.get(subject) or people.setdefault(subject, commitment(key, subject))
            joined.add(person + (samples.get(sample) or samples.setdefault(sample, commit(key, sample))))
        return cls(np.frombuffer(b"".join(sorted(joined)), dtype=np.uint8).reshape(-1, 2 * SIZE))

    def samples(self, person: bytes) -> frozenset[bytes]:
        """Return the commitments to the samples of a subject. person: the commitment to the subject."""
        wanted = np.uint64(int.from_bytes(person[:8], "big"))
        low, high = (int(np.searchsorted(self._first, wanted, side=side)) for side in ("left", "right"))
        return frozenset(bytes(row[SIZE:]) for row in self.rows[low:high] if bytes(row[:SIZE]) == person)

    def count(self) -> tuple[int, int]:
        """Return how many subjects and how many samples there are."""
        return tuple(len(np.unique(self.rows[:, half], axis=0)) for half in (slice(0, SIZE), slice(SIZE, None)))  # type: ignore[return-value]


def commitment(key: bytes, subject: str) -> bytes:
    """Return the commitment to a subject: 32 bytes."""
    return commit(key, _SUBJECT + subject.encode())


def pseudonym(person: bytes) -> str:
    """Return the name used for a person where their own may not be written: "p" and 16 hex characters, the same in all their requests."""
    return f"p{person.hex()[:16]}"


@dataclass(frozen=True)
class Subjects:
    """The subjects of a project's data sets. Creating the object touches nothing on disk."""

    project: Project

    def path(self, data: str) -> Path:
        return self.project.home / "subjects" / data

    def names(self) -> list[str]:
        """Return the data sets that have subjects."""
        return list(dict.fromkeys(event.subject for event in self.project.ledger.events(kind=RECORDED)))

    @cached_property
    def key(self) -> bytes:
        """The key of the commitments. Raises `MeguError` when it is not here."""
        key = Keys(self.project.keys).commitment_key()
        if key is None:
            raise MeguError("the key of the subjects is not here", "put it back into .megu/keys/commitments.key")
        return key

    def record(self, data: str, pairs: Iterable[tuple[bytes, str]]) -> Header:
        """Store the subjects of a data set, replacing earlier ones. pairs: sample id and subject.

        The event comes after the file: if killed between the two, doing it again completes it.
        """
        key = Keys(self.project.keys).commitment_key(create=True)
        assert key is not None
        hashes = Hashes.of(key, pairs)
        subjects, samples = hashes.count()
        facts = {"data": data, "rows": len(hashes.rows), "subjects": subjects, "samples": samples}
        header = Header(format=FORMAT, key=fingerprint(key), **facts)  # type: ignore[arg-type]
        with writing(self.path(data)) as temporary:
            temporary.write_bytes(_line(header) + encrypted(_own_key(key), hashes.rows.tobytes(), _line(header)))
        said = {"subjects": subjects, "samples": samples}
        if not (events := self.project.ledger.events(data, RECORDED)) or dict(events[-1].facts) != said:
            self.project.ledger.append(RECORDED, data, said)
        return header

    def header(self, data: str) -> Header:
        """Return the header of a data set's file; see `opened`."""
        return self._read(data)[0]

    def opened(self, data: str) -> Hashes:
        """Return the rows of a data set.

        Raises `MeguError` for one without subjects, a file that is gone or was changed, and when its key is not here.
        """
        header, content = self._read(data)
        plain = decrypted(_own_key(self.key), content, _line(header)) if fingerprint(self.key) == header.key else None
        if plain is None or len(plain) != header.rows * 2 * SIZE:
            raise MeguError(
                f"the subjects of {data} do not open",
                f"bring back .megu/keys/commitments.key, or `megu data subjects {data} FILE`",
            )
        return Hashes(np.frombuffer(plain, dtype=np.uint8).reshape(-1, 2 * SIZE))

    def _read(self, data: str) -> tuple[Header, bytes]:
        again = f"add them with `megu data subjects {data} FILE`"
        try:
            line, _, content = self.path(data).read_bytes().partition(b"\n")
        except FileNotFoundError:
            if data in self.names():
                raise MeguError(
                    f"the subjects of {data} are gone (.megu/subjects/{data})", f"bring them back from a backup, or {again}"
                ) from None
            raise MeguError(f"data set {data!r} has no subjects", again) from None
        try:
            value = json.loads(line)
            if value["format"] > FORMAT:
                raise MeguError(f"the subjects of {data} were written by a newer megu", "use that version")
            return Header(**value), content
        except (ValueError, KeyError, TypeError):
            raise MeguError(f"the subjects of {data} are damaged", f"bring them back from a backup, or {again}") from None


def _line(header: Header) -> bytes:
    return canonical_json(asdict(header)) + b"\n"


def _own_key(key: bytes) -> bytes:
    return commit(key, CONTEXT)
