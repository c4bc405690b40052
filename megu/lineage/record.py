"""One record per stage, chained by hash to one root.

A record has two parts. Its *identity* is what must be reproducible: the code by digest, parameters, inputs, outputs, and the digests
of the records it came from. Its *circumstances* vary from run to run: times, run ids, whether a cached result was used and where it
was made. The root covers the identities alone, so the same request on the same data gives the same root whenever it is run; the
dossier's seal covers everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from megu.core.errors import MeguError
from megu.core.files.store import Ref, canonical_json
from megu.core.stages import PRIVATE, Result
from megu.lineage.commitments import commit, redact_parts

#: Incremented when the contents of a record change.
FORMAT = 1

JSON = Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """One stage of a run.

    label: its name in the run. stage, key: the stage whose result it is, and the key under which that is cached.
    parts: what the key is made of (code digests, parameters, digests of inputs). files, values: the outputs.
    parents: label -> digest of the records of its inputs. circumstances: the part that varies.
    """

    label: str
    stage: str
    key: str
    parts: Mapping[str, JSON]
    files: Mapping[str, Mapping[str, JSON]]
    values: Mapping[str, JSON]
    parents: Mapping[str, str]
    circumstances: Mapping[str, JSON]

    @property
    def identity(self) -> dict[str, JSON]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "circumstances"}

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(canonical_json(self.identity)).hexdigest()

    @property
    def refs(self) -> dict[str, Ref]:
        """The output files."""
        return {name: Ref.from_json(entry) for name, entry in self.files.items()}

    @property
    def result_digest(self) -> str:
        """The digest by which the keys of later stages refer to this result (`megu.core.stages.Result.digest`)."""
        return Result(self.stage, {}, self.refs, self.values, {}, 0.0, {}).digest


def build(
    label: str,
    key: str,
    result: Result,
    parents: Sequence[Record],
    circumstances: Mapping[str, JSON],
    secret: bytes,
) -> Record:
    """Build the record of a result. secret: the key of the commitments that replace sample ids and names."""
    return Record(
        label=label,
        stage=result.stage,
        key=key,
        parts=redact_parts(result.parts, secret),
        files={name: ref.to_json() for name, ref in result.files.items()},
        values=dict(result.values),
        parents={parent.label: parent.digest for parent in parents},
        circumstances=circumstances,
    )


def root(records: Iterable[Record]) -> str:
    """Return the root of a run: SHA-256 over its records' digests, in order."""
    chain = ["megu lineage", FORMAT, [record.digest for record in records]]
    return hashlib.sha256(canonical_json(chain)).hexdigest()


def to_lines(records: Iterable[Record]) -> bytes:
    """Return one line of canonical JSON per record."""
    return b"".join(
        canonical_json({"format": FORMAT, "identity": record.identity, "circumstances": dict(record.circumstances)}) + b"\n"
        for record in records
    )


def from_lines(content: bytes, where: str) -> list[Record]:
    """Parse what `to_lines` wrote.

    Raises `MeguError` for a truncated file, an unknown field or a newer format.
    """
    if not content.endswith(b"\n"):
        raise MeguError(f"{where} is cut off", "get the file again")
    return [_parse(line, f"{where}, line {number}") for number, line in enumerate(content.splitlines(), 1)]


def _parse(line: bytes, where: str) -> Record:
    try:
        value = json.loads(line)
        newer_is_refused(value["format"], FORMAT, where)
        identity, circumstances = value["identity"], value["circumstances"]
        known = {entry.name for entry in fields(Record)} - {"circumstances"}
        if unknown := sorted((set(value) - {"format", "identity", "circumstances"}) | (set(identity) - known)):
            raise MeguError(f"{where} has the unknown field {unknown[0]}", "it is not as megu wrote it")
        record = Record(**identity, circumstances=dict(circumstances))
        for name in ("parts", "files", "values", "parents"):
            dict(getattr(record, name))
        record.refs  # noqa: B018 - raises where a file is not described
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeguError(f"{where} is not a record ({type(error).__name__}: {error})", "it is not as megu wrote it") from None


def newer_is_refused(found: object, known: int, where: str) -> None:
    """Raise `Newer` for a format that this version of megu cannot know, `MeguError` for one that never existed."""
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise MeguError(f"{where} has no format that megu wrote ({found!r})", "it is not as megu wrote it")
    if found > known:
        raise Newer(f"{where} has format {found}, and this megu knows up to {known}", "install a newer megu")


class Newer(MeguError):
    """Written by a newer version: it may be right, but cannot be checked."""


def faults(records: Sequence[Record]) -> list[str]:
    """Return what is wrong inside the chain: parents that are other records, keys that do not follow from their parts, inputs that no
    record produced."""
    found, before = [], dict[str, Record]()
    for record in records:
        if record.label in before:
            found.append(f"there are two records {record.label}")
        for label, digest in record.parents.items():
            if label not in before:
                found.append(f"{record.label} names {label}, which does not come before it")
            elif before[label].digest != digest:
                found.append(f"{record.label} was made from a different {label}")
        hidden = any(record.parts.get(name) for name in PRIVATE)
        if not hidden and record.key != _key(record):
            found.append(f"the key of {record.label} does not follow from its parts")
        results = {before[label].result_digest for label in record.parents if label in before}
        wanted = {value for name, value in record.parts.items() if name.startswith("input ") and value is not None}
        if wanted != results:
            found.append(f"the inputs of {record.label} are not what came before it")
        before[record.label] = record
    return found


def _key(record: Record) -> str:
    return f"{record.stage}-{hashlib.sha256(canonical_json(dict(record.parts))).hexdigest()[:40]}"


def hide_params(params: Mapping[str, str], recorded: Mapping[str, str], key: bytes | None) -> dict[str, str]:
    """Return MLflow's parameters as a dossier has them. Where the dossier has a commitment to a value that names samples (MLflow once
    had the values themselves), return the commitment to the value; without the key, something that equals no commitment."""
    return {
        name: (f"hmac:{commit(key, value.encode()).hex()}" if key else "hmac: no key here")
        if name in PRIVATE and recorded.get(name, "").startswith("hmac:")
        else value
        for name, value in params.items()
    }
