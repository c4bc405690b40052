"""``subjects.csv``: one row for each sample of a person, by id or by file. No value is ever repeated in a message: it names a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from megu.core.errors import MeguError
from megu.core.files import tables
from megu.data.arrays import SPLITS, Dataset
from megu.data.images.layout import SPLIT_FOLDERS
from megu.data.naming import nfc
from megu.data.splits import file_names

SUBJECT, SAMPLE = "subject", ("sample", "file", "id")
#: Most characters in the name of a subject, and most bytes of a table: ten million rows.
_LONGEST, _LARGEST = 255, 1 << 30


@dataclass(frozen=True)
class Table:
    """pairs: sample id (32 characters) and subject, deduplicated. absent: number of rows that name no image of the data set, which is a part
    of a larger one."""

    pairs: frozenset[tuple[bytes, str]]
    absent: int = 0


def read(path: Path, dataset: Dataset) -> Table:
    """Read a table for a data set: a column ``subject``, and a column ``sample`` (or ``file``, ``id``) of sample ids or file names.

    Any number of rows may have the same sample or the same subject. Raises `MeguError` with the line for a file that is not a table, an empty
    subject, and a sample that the data set does not have, unless only part of the images was packed (``--only``, ``--per-class``).
    """
    columns, rows = tables.table(tables.text_of(path, _LARGEST), path.name, [SUBJECT, *SAMPLE])
    samples = [name for name in SAMPLE if name in columns]
    if SUBJECT not in columns or len(samples) != 1:
        raise MeguError(
            f"{path.name}: the first line does not have the headings of a table of subjects",
            f"give it a column {SUBJECT!r} and one column {SAMPLE[0]!r} (or {' or '.join(map(repr, SAMPLE[1:]))})",
        )
    who, what = columns.index(SUBJECT), columns.index(samples[0])
    known, pairs, absent = _Known(dataset), set[tuple[bytes, str]](), 0
    for line, cells in rows:
        subject = spelt(cells[who], f"{path.name}, line {line}")
        found = known.ids(cells[what].strip(), f"{path.name}, line {line}")
        pairs |= {(identifier, subject) for identifier in found}
        absent += not found
    if not pairs:
        raise MeguError(f"{path.name} names no sample of {dataset.name!r}", "write a row for each sample")
    return Table(frozenset(pairs), absent)


def subjects(path: Path) -> list[str]:
    """Return the subjects in a table with a column ``subject``, deduplicated, in order. Raises `MeguError` with the line."""
    columns, rows = tables.table(tables.text_of(path, _LARGEST), path.name, [SUBJECT])
    if SUBJECT not in columns:
        raise MeguError(f"{path.name} has no column {SUBJECT!r}", "give the column of subjects that heading")
    at = columns.index(SUBJECT)
    found = list(dict.fromkeys(spelt(cells[at], f"{path.name}, line {line}") for line, cells in rows))
    if not found:
        raise MeguError(f"{path.name} names no subject", "write one per line")
    return found


def spelt(text: str, where: str) -> str:
    """Return the name of a subject in its normalised spelling. Raises `MeguError` for a name that cannot be one."""
    subject = nfc(text.strip())
    if not subject:
        raise MeguError(f"{where}: the subject is empty", "write who it is, by the name your system uses")
    if len(subject) > _LONGEST or not subject.isprintable():
        raise MeguError(f"{where}: the subject is not text of at most {_LONGEST} characters", "correct it")
    return subject


class _Known:
    """The samples of a data set by id and by file."""

    def __init__(self, dataset: Dataset) -> None:
        self.partly = bool(dataset.reduced)
        self.left_out = {nfc(file) for line in dataset.left_out for file in file_names(line.partition(": ")[0])}
        self.all: set[bytes] = set()
        self.files: dict[str, Mapping[str, bytes]] = {}
        for split in SPLITS:
            part = getattr(dataset, split)
            ids = [bytes(value) for value in part.ids.tolist()]
            self.all.update(ids)
            if part.names is not None:
                self.files[split] = dict(zip((nfc(name.decode()) for name in part.names.tolist()), ids, strict=True))

    def ids(self, sample: str, where: str) -> list[bytes]:
        """Return the id that a cell names; none for an image that is known to have been left out."""
        if not sample:
            raise MeguError(f"{where}: the sample is empty", "write its id or its file")
        if re.fullmatch(r"[0-9a-fA-F]{32}", sample):
            found = {sample.lower().encode()} & self.all
        else:
            found = set(self._named(sample.replace("\\", "/")))
            if len(found) > 1:
                raise MeguError(f"{where}: the file is in train and in test", "write train/class/file or test/class/file")
        if not found and not self.partly and self.left_out.isdisjoint(map(nfc, file_names(sample))):
            by = "" if self.files else ", whose images have no names"
            raise MeguError(f"{where}: the sample is none of the data set{by}", "correct the row, or leave it out")
        return list(found)

    def _named(self, file: str) -> Iterator[bytes]:
        parts = PurePosixPath(file).parts
        split = SPLIT_FOLDERS.get(parts[-3].lower()) if len(parts) > 2 else None
        for own, known in self.files.items():
            if split in (None, own):
                yield from (known[name] for name in map(nfc, file_names(file)) if name in known)
