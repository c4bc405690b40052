"""``purge.json``: what a purge did, found and left, as a signed document. It names no sample.

It lists the seals of the dossiers whose requests it fulfils, and the purge before it. For each data set it holds the hash before and after
and, for each removed row, its position and the commitment to its id: whoever has the project's key can show that the new version and the
removed rows together make up the old version, without having any of those rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.params import STRICT
from megu.lineage.commitments import SIZE
from megu.lineage.dossier import sha256, strict
from megu.lineage.purged import locations as places

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Incremented when the contents of the document change.
FORMAT = 1
#: Its name in a dossier's folder; a later purge of the same run is ``purge-2.json``.
NAME = "purge.json"

ERASED, RESIDUAL, RETAINED = "ERASED", "RESIDUAL", "RETAINED"

#: Why a stored file of a data set's old version is erased.
OF_VERSION = "of the version of {} that has the images"
#: Why a file remains that has the content of an erased one.
CAME_BACK = "has come back, or was copied"


def holds_samples(name: str) -> bool:
    """Return whether a data set's file holds the samples themselves: their images or ids. Labels, names and facts may recur elsewhere."""
    return name.endswith(("_images.npy", "_ids.npy"))


@dataclass(frozen=True, kw_only=True)
class Covered:
    """A run whose request is fulfilled. seal: its dossier's. request: as text. forgotten: SHA-256 of its ``forgotten.hmac``."""

    __pydantic_config__ = STRICT

    mlflow_run_id: str
    seal: str
    request: str
    forgotten: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Removed rows of one split: positions in the version before, ascending; the commitments to their ids in that order, in hex."""

    __pydantic_config__ = STRICT

    positions: list[int]
    commitments: str

    def each(self) -> list[bytes]:
        content = bytes.fromhex(self.commitments)
        return [content[start : start + SIZE] for start in range(0, len(content), SIZE)]


@dataclass(frozen=True, kw_only=True)
class DataErased:
    """A data set's new version. before, after: DVC's hash (md5, size, nfiles). trained: SHA-256 of the commitments to all training images of
    the version before (`megu.lineage.index`)."""

    __pydantic_config__ = STRICT

    name: str
    before: dict[str, Any]
    after: dict[str, Any]
    trained: str
    train: Rows
    test: Rows


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was erased, kept or left. what: where it was, relative to the project. sha256: of its content, for a file.

    why: what it held of the samples, or why it stays. until: the day from which a purge will remove it, if there is one.
    """

    __pydantic_config__ = STRICT

    surface: str
    what: str
    sha256: str | None
    why: str
    until: str | None


@dataclass(frozen=True, kw_only=True)
class Location:
    """verdict: `ERASED`, `RESIDUAL` or `RETAINED`. says: the verdict in words."""

    __pydantic_config__ = STRICT

    name: str
    verdict: str
    says: str


@dataclass(frozen=True, kw_only=True)
class Purge:
    """created: when it was decided (UTC). previous: seal of the purge before. key: fingerprint of the commitment key.

    policy: the section ``purge`` as applied. witnessed: runs whose commitments were recomputed, and held, while the rows were still there.
    looked: how many samples were searched for, in how many files and bytes, and how many could not be (images of one shade).
    """

    __pydantic_config__ = STRICT

    format: int
    created: str
    previous: str | None
    key: str
    policy: dict[str, Any]
    covers: list[Covered]
    data: list[DataErased]
    witnessed: list[dict[str, str]]
    erased: list[Entry]
    retained: list[Entry]
    residual: list[Entry]
    surfaces: list[Location]
    looked: dict[str, int]
    environment: dict[str, str]

    def holding(self) -> set[str]:
        """Return the SHA-256 of what held samples and was erased from data sets, DVC's cache and remotes: equal content is a copy."""
        return {
            entry.sha256
            for entry in self.erased
            if entry.sha256 is not None
            and (
                holds_samples(entry.what)
                if entry.surface == places.DATA
                else entry.surface in (places.CACHE, places.REMOTES) and not entry.why.startswith(OF_VERSION.partition("{")[0])
            )
        }

    def harmless(self) -> set[str]:
        """Return the SHA-256 of what else was erased there as part of the old version: equal content may be another data set's."""
        data = (places.DATA, places.CACHE, places.REMOTES)
        return {entry.sha256 for entry in self.erased if entry.sha256 is not None and entry.surface in data} - self.holding()


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """The file. seal: SHA-256 of the purge in canonical JSON. public, signature: in hex, the signature being of those bytes."""

    __pydantic_config__ = STRICT

    purge: Purge
    seal: str
    public: str
    signature: str

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))


def content_of(purge: Purge) -> bytes:
    """Return the bytes that are hashed and signed."""
    return canonical_json(asdict(purge))


def sealed(purge: Purge, key: Ed25519PrivateKey) -> Sealed:
    from megu.lineage.keys import public_of, sign

    content = content_of(purge)
    return Sealed(purge=purge, seal=sha256(content), public=public_of(key), signature=sign(key, content))


def parse(content: bytes, where: str, trusted: Sequence[str]) -> Sealed:
    """Read a document, and accept it only when it is whole and signed by one of the keys ``trusted`` (hex).

    Raises `megu.lineage.record.Newer` for a newer format, `MeguError` for anything else that is wrong, in one line.
    """
    from megu.lineage.keys import signed_by
    from megu.lineage.record import newer_is_refused

    try:
        value = json.loads(content)
        newer_is_refused(value["purge"]["format"], FORMAT, where)
    except (ValueError, KeyError, TypeError) as error:
        raise MeguError(f"{where} is cut off or not a purge document ({error!r})", "get the file again") from None
    found = strict(Sealed, content, where)
    signed = content_of(found.purge)
    if sha256(signed) != found.seal:
        raise MeguError(f"{where} does not match its seal", "it is not as megu wrote it")
    if found.public not in trusted:
        raise MeguError(f"{where} is signed by {found.public[:16]}…, which is not trusted here", "name the key with --key")
    if not signed_by(found.public, found.signature, signed):
        raise MeguError(f"{where}: the signature is not by the key {found.public[:16]}…", "it is not as megu wrote it")
    return found


def file_name(number: int) -> str:
    """Return the name of a run's ``number``-th purge, from 1."""
    return NAME if number == 1 else f"purge-{number}.json"


def is_name(name: str) -> bool:
    return name == NAME or (name.startswith("purge-") and name.endswith(".json"))
