"""A project's suppression list, ``.megu/suppression/``: one file per record. Additions and removals are in the ledger, and a record that
merely vanished is an error: without it, erased data would be let in again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.files.store import writing
from megu.core.project import Project
from megu.lineage.commitments import fingerprint
from megu.lineage.keys import Keys
from megu.suppression.listed import SuppressionList
from megu.suppression.record import Record, parse

SUFFIX = ".suppression"
#: Why a record is removed. No free text: the ledger keeps it for ever.
REASONS = ("consent-given", "erased-by-mistake", "retention-expired", "court-order")

_PREFIX = "suppression."
ADDED, IMPORTED, REMOVED = (f"{_PREFIX}{name}" for name in ("added", "imported", "removed"))


@dataclass(frozen=True)
class Suppressions:
    """The list of a project. Creating the object touches nothing on disk."""

    project: Project

    @property
    def root(self) -> Path:
        return self.project.home / "suppression"

    def path(self, record: str) -> Path:
        return self.root / f"{record}{SUFFIX}"

    @property
    def state(self) -> str:
        """A text that changes when the list does, or when a day begins, on which a record may have expired; empty without a list."""
        looks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in self._paths()]
        return "; ".join([*looks, datetime.now(UTC).date().isoformat()]) if looks or self._missing() else ""

    def records(self) -> list[Record]:
        """Return every record, oldest first.

        Raises `MeguError` for one that is gone or damaged.
        """
        if gone := self._missing():
            raise MeguError(
                f"the suppression list lacks the record {gone[0]}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}",
                "bring it back with `megu suppress import FILE` (an export) or from a backup of .megu/suppression",
            )
        found = [record for path in self._paths() for record in parse(path.read_bytes(), self.project.relative(path))]
        return sorted(found, key=lambda record: (record.header.erased, record.header.id))

    def opened(self) -> SuppressionList:
        """Open the list for matching images. Raises `MeguError` when the key is not here, or a record is gone or was changed."""
        records = self.records()
        return SuppressionList(records, self._key() if records else b"")

    def add(self, records: Sequence[Record]) -> None:
        """Store new records. The event comes after the file: if killed between the two, adding again completes it."""
        for record in records:
            self._keep(record, ADDED)

    def take(self, content: bytes, where: str) -> tuple[list[Record], list[str]]:
        """Import the records of an exported list that are not here. Return them, and a line for each that was removed here and stays removed.

        Raises `MeguError`, and imports nothing, for a file that is not a list, or one under another key.
        """
        found, key = parse(content, where), self._key()
        for record in found:
            if record.header.key != fingerprint(key):
                raise MeguError(
                    f"{where} was made under another key than this project's",
                    "put that project's commitments.key into .megu/keys, or use the list in the project it comes from",
                )
            record.opened(key)
        new, lines = list[Record](), list[str]()
        for record in found:
            name = record.header.id
            if event := next(iter(reversed(self.project.ledger.events(name, REMOVED))), None):
                lines.append(f"{name} was removed on {event.time[:10]} ({event.facts['why']}) and is not imported again")
            elif not self.path(name).is_file():
                self._keep(record, IMPORTED)
                new.append(record)
        return new, lines

    def remove(self, record: str, why: str) -> None:
        """Remove a record for one of `REASONS`. Raises `MeguError` when there is none, or for another reason."""
        if why not in REASONS:
            raise MeguError(f"{why!r} is not a reason to remove a record", f"one of {', '.join(REASONS)}")
        if not self.path(record).is_file():
            raise MeguError(f"there is no suppression record {record}", "`megu suppress list` names them")
        # The event comes first: if killed before the file is gone, removing again completes it. A file gone without its event would be an
        # error for ever.
        if record not in self._removed():
            self.project.ledger.append(REMOVED, record, {"why": why})
        self.path(record).unlink()

    def expire(self, today: date) -> list[str]:
        """Remove the records that have expired. Return their ids."""
        over = [record.header.id for record in self.records() if record.header.expired(today)]
        for name in over:
            self.remove(name, "retention-expired")
        return over

    def _keep(self, record: Record, kind: str) -> None:
        header = record.header
        if not self.path(header.id).is_file():
            with writing(self.path(header.id)) as temporary:
                temporary.write_bytes(record.to_bytes())
        facts = {"samples": header.samples, "requests": header.requests, "runs": header.runs, "until": header.until}
        if not self.project.ledger.events(header.id, kind):
            self.project.ledger.append(kind, header.id, facts)

    def _key(self) -> bytes:
        key = Keys(self.project.keys).commitment_key()
        if key is None:
            raise MeguError("the key of the suppression list is not here", "put it back into .megu/keys/commitments.key")
        return key

    def _paths(self) -> list[Path]:
        """Return the files of records, without those that the ledger says were removed."""
        found = sorted(self.root.glob(f"[!.]*{SUFFIX}")) if self.root.is_dir() else []
        return [path for path in found if path.stem not in self._removed()] if found else []

    def _removed(self) -> set[str]:
        return {event.subject for event in self.project.ledger.events(kind=REMOVED)}

    def _missing(self) -> list[str]:
        """Return the records that the ledger knows and that are not here."""
        known = dict.fromkeys(event.subject for event in self.project.ledger.events(kind=_PREFIX))
        removed = self._removed() if known else set()
        return [name for name in known if name not in removed and not self.path(name).is_file()]
