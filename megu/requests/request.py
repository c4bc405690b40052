"""A request to forget: what, why, on what legal basis, for whom, by when. Everything but the target is from a closed list.

There is no field for free text: a name or an address written there would outlive the data in the ledger, from which nothing is ever
removed. The target itself may name a person (a file, or a class of one), so it is stored separately, where it can be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from megu.core.files.store import canonical_json
from megu.core.params import STRICT, check
from megu.data.naming import nfc
from megu.lineage.commitments import commit

REASONS = (
    "erasure-request",
    "consent-withdrawn",
    "objection",
    "unlawful-processing",
    "retention-expired",
    "licence-ended",
    "court-order",
    "security-incident",
    "data-quality",
)
BASES = (
    *(f"gdpr-17-1-{letter}" for letter in "abcdef"),
    "ccpa-1798-105",
    "lgpd-18-vi",
    "contract",
    "court-order",
    "internal-policy",
)
REQUESTERS = ("data-subject", "representative", "guardian", "regulator", "court", "data-owner", "internal")
KINDS = ("class", "subclass", "ids")
#: What a request may name.
TARGETS = ("classes", "subclasses", "ids", "files", "samples")

#: A ticket number in the team's own system, such as DSR-2026-0142, ABC-123/4, #123, 4711 or a UUID; not a name, an address or a
#: telephone number.
_REFERENCE = re.compile(
    r"[A-Z]{2,10}([-/._]?[0-9]{1,8}){1,4}|#?[0-9]{1,9}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
)
_ID = re.compile(r"[0-9a-f]{32}")
#: As `megu.data.sources.providers` allows.
_DATA = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class RequestParams:
    """How requests are processed.

    due_days: days until a request without a due date is due (the GDPR's month).
    batch: the most requests that are processed together.
    attempts: failures after which a request waits for a person (``megu request retry``).
    controller: the controller of the processing, one line, on the page of a request (``megu certificate --request``); else the folder's name.
    backups_days: days for which your backups are kept, for the same page; null: the page says that this was not stated.
    """

    __pydantic_config__ = STRICT

    due_days: int = 30
    batch: int = 500
    attempts: int = 3
    controller: str | None = None
    backups_days: int | None = None

    def __post_init__(self) -> None:
        check("due_days", self.due_days, 1 <= self.due_days <= 3650, "between 1 and 3650")
        check("batch", self.batch, self.batch >= 1, "at least 1")
        check("attempts", self.attempts, self.attempts >= 1, "at least 1")
        said = self.controller
        fits = said is None or (bool(said.strip()) and said.isprintable() and len(said) <= 200)
        check("controller", said, fits, "one line of at most 200 characters")
        days = self.backups_days
        check("backups_days", days, days is None or 0 <= days <= 36500, "between 0 and 36500, or null")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. It names classes, finer classes, training images by id or file, or all samples of a person; one kind at a time.

    reason, basis, requester: one of `REASONS`, `BASES`, `REQUESTERS`. due: ISO date. reference: a ticket number
    ("DSR-2026-0142"), which also distinguishes two requests for the same thing; empty for none. data: the data set that it is about,
    whatever is configured later; empty for the one configured when it comes in. samples: the ids of a person's samples in the whole
    data set, train and test. Those that are training images in use are forgotten, and all of them are erased. person: their pseudonym
    (`megu.subjects.store.pseudonym`), which connects the requests of one person; empty for a request that is not about a person.
    """

    __pydantic_config__ = STRICT

    classes: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    reason: str = "erasure-request"
    basis: str
    requester: str
    due: str
    reference: str = ""
    data: str = ""
    samples: tuple[str, ...] = ()
    person: str = ""

    def __post_init__(self) -> None:
        for name in ("classes", "subclasses", "files"):
            object.__setattr__(self, name, tuple(map(nfc, getattr(self, name))))
        named = [bool(self.classes), bool(self.subclasses), bool(self.ids or self.files), bool(self.samples)]
        check(
            "classes", self.classes, sum(named) == 1, "given, or else subclasses, or else ids and files: one kind per request"
        )
        for name, known in (("reason", REASONS), ("basis", BASES), ("requester", REQUESTERS)):
            check(name, getattr(self, name), getattr(self, name) in known, f"one of {', '.join(known)}")
        check("due", self.due, _is_date(self.due), "a date such as 2026-12-24")
        fits = not self.reference or bool(_REFERENCE.fullmatch(self.reference))
        check("reference", self.reference, fits, "a ticket's number such as DSR-2026-0142, not text, which could name a person")
        check("data", self.data, not self.data or bool(_DATA.fullmatch(self.data)), "the name of a folder under data/")
        check("person", self.person, bool(self.person) == bool(self.samples), "given with samples, and only with them")
        wrong = [identifier for identifier in (*self.ids, *self.samples) if not _ID.fullmatch(identifier)]
        check("ids", wrong[0] if wrong else "", not wrong, "32 hex characters each (data/<name>/train_ids.npy)")
        for name in ("classes", "subclasses", "files"):
            blank = [entry for entry in getattr(self, name) if not entry.strip() or len(entry) > 255 or not entry.isprintable()]
            check(name, blank[0] if blank else "", not blank, "names of at most 255 characters")

    @property
    def kind(self) -> str:
        """One of `KINDS`; requests of one kind are measured in the same way, so they are processed together."""
        return "class" if self.classes else "subclass" if self.subclasses else "ids"

    @property
    def target(self) -> dict[str, list[str]]:
        """What is to be forgotten, deduplicated and sorted."""
        return {name: sorted(set(getattr(self, name))) for name in TARGETS if name != "samples" or self.samples}

    @property
    def facts(self) -> dict[str, Any]:
        """What the ledger may hold of it: counts in place of names."""
        return {
            "kind": self.kind,
            **{name: len(entries) for name, entries in self.target.items() if entries},
            **{name: getattr(self, name) for name in ("reason", "basis", "requester", "due", "reference", "data")},
            **({"person": self.person} if self.person else {}),
        }

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text and 2000 <= int(text[:4]) <= 2100
    except ValueError:
        return False


def identity(key: bytes, request: Request, *, named: bool = True, earlier: int = 0) -> str:
    """Return the request's id: "r" and 16 hex characters, the same whenever the same target is requested under the same reference.

    It is a commitment under the project's key, so that nobody outside can find out from the id which sample was meant. named: whether to
    include its data set; ids from before requests named one lack it. earlier: how many of the same were withdrawn or rejected before.
    """
    about = ["request", request.target, request.reference, *([request.data] if named else []), *([earlier] if earlier else [])]
    about += [request.person] if request.person else []
    return f"r{commit(key, canonical_json(about)).hex()[:16]}"


def scrubbed(text: str, targets: Mapping[str, Any] | None = None, most: int = 200) -> str:
    """Return a reason as the ledger may hold it: one line, without the names in ``targets`` (`Request.target`), ids, paths or logins."""
    names = sorted({name for entries in (targets or {}).values() for name in entries}, key=len, reverse=True)
    for name in names:
        text = text.replace(name, "…")
    text = re.sub(r"://\S+|\b[0-9a-f]{32,64}\b|(?<!\w)/[^\s'\",;)]+", "…", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", " ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"
