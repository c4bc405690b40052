"""What a request covers: whole classes, finer classes, single samples, or several of these together.

One value that the split, the certificate, the purge and every sentence about a request read, in place of the scenario's name: a mixed
request covers several at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megu.data.naming import nfc


@dataclass(frozen=True)
class RequestScope:
    """classes, subclasses: names of what goes as a whole. samples: how many single samples are listed, or drawn where ``drawn``."""

    classes: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()
    samples: int = 0
    drawn: bool = False

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> RequestScope:
        """The scope of a request, as the section ``forget`` or the ``request`` of a dossier has it (there samples may be redacted).

        Raises ``ValueError`` for a scenario that is not known.
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
        """Everything that goes as a whole."""
        return (*self.classes, *self.subclasses)

    def __str__(self) -> str:
        """In a few words; no sample is named."""
        kind = "random images" if self.drawn else "image" if self.samples == 1 else "images"
        return ", ".join([*self.names, *([f"{self.samples} {kind}"] if self.samples else [])])
