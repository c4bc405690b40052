"""What a request covers: whole classes, finer classes, single samples, or several of these together.

The split, the certificate, the purge and every sentence about a request read this one value instead of the scenario's name, because a mixed
request covers several of these at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megu.data.naming import nfc


@dataclass(frozen=True)
class RequestScope:
    """classes, subclasses: names of what is forgotten entirely. samples: how many single samples are listed, or drawn where ``drawn``."""

    classes: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()
    samples: int = 0
    drawn: bool = False

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> RequestScope:
        """Return the scope of a request from the section ``forget`` or a dossier's ``request`` (where samples may be redacted).

        Raises ``ValueError`` for an unknown scenario.
        """
        scenario, names = request["scenario"], tuple(map(nfc, request["classes"]))
        listed = len(request.get("ids", ())) + len(request.get("files", ()))
        if scenario == "class":
            return cls(classes=names)
        if scenario == "subclass":
            return cls(subclasses=names)
        if scenario == "random":
            return cls(samples=int(request["count"]), drawn=True)
        if scenario == "ids":
            return cls(samples=listed)
        if scenario == "mixed":
            return cls(classes=names, subclasses=tuple(map(nfc, request["subclasses"])), samples=listed)
        raise ValueError(f"no such scenario: {scenario}")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of everything that is forgotten entirely."""
        return (*self.classes, *self.subclasses)

    def __str__(self) -> str:
        """Describe the scope in a few words, without naming any sample."""
        kind = "random images" if self.drawn else "image" if self.samples == 1 else "images"
        return ", ".join([*self.names, *([f"{self.samples} {kind}"] if self.samples else [])])
