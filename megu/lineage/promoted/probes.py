"""``probes-….json``: a few test images by commitment, and the answers of the champion and of the version before it.

It lies beside the dossier of the champion's run, named by the hash of its content, which is also in the ledger. It names no sample: whoever
has the data set and the key of the commitments can find the images again. With it one can tell from outside which version a server has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.files.store import canonical_json
from megu.core.params import STRICT
from megu.core.project import Project
from megu.lineage.dossier import sha256, strict

#: Incremented when the contents of the document change.
FORMAT = 1
#: The event recorded when a document is made; its subject is the registered model.
MADE = "served.probes"
#: The version before the first champion: the model that was made to forget.
ORIGINAL = "original"

_NAME = re.compile(r"probes-[0-9a-f]{16}\.json")


@dataclass(frozen=True, kw_only=True)
class Probes:
    """model, version: the champion. before: the version before it, `ORIGINAL`, or empty where there is none whose answers are known.

    data: the data set's name. key: fingerprint of the commitment key. samples: a commitment (hex) to each probe's id.
    champion, other: rounded probabilities (N, K) of the champion and of the version before it; other is empty where before is.
    """

    __pydantic_config__ = STRICT

    format: int
    model: str
    version: str
    before: str
    data: str
    key: str
    samples: list[str]
    champion: list[list[float]]
    other: list[list[float]]

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self))


def file_name(content: bytes) -> str:
    return f"probes-{sha256(content)[:16]}.json"


def is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name))


def made_for(events: Sequence[Event], move: Event) -> Event | None:
    """Return the event that recorded the probes of a move of the champion. events: those of the registered model."""
    return next((event for event in reversed(events) if event.kind == MADE and event.facts["event"] == move.number), None)


def read(project: Project, made: Event) -> Probes:
    """Read the document of an event. Raises `MeguError` when it is gone or has changed."""
    path = project.dossiers / str(made.facts["run_id"]) / f"probes-{str(made.facts['sha256'])[:16]}.json"
    where = project.relative(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MeguError(f"{where} cannot be read ({error.strerror})", "put results/dossiers back from a backup") from None
    if sha256(content) != made.facts["sha256"]:
        raise MeguError(f"{where} does not match the ledger", "put it back from a backup")
    return strict(Probes, content, where)


def faults(files: Sequence[tuple[str, bytes]], named: Sequence[str]) -> list[str]:
    """Return what is wrong with the documents beside a dossier, one line each. named: SHA-256 of those in the ledger for its run."""
    here = {sha256(content) for _, content in files}
    wrong = [f"{name} has changed" for name, content in files if name.rpartition(": ")[2] != file_name(content)]
    return wrong + [f"probes-{digest[:16]}.json is gone" for digest in named if digest not in here]
