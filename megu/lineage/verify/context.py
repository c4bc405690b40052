"""Context shared by all checks, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from megu.core.project import Project
from megu.lineage.dossier import Dossier, Seal
from megu.lineage.record import Record

if TYPE_CHECKING:
    from megu.lineage.purged.erasures import Erasures
    from megu.tracking.lineage import MlflowClient

JSON = Any


@dataclass(frozen=True)
class Check:
    """holds: True, False (it differs), or None (it cannot be checked here). says: what was checked, or what is wrong, in one line."""

    name: str
    holds: bool | None
    says: str


def summed(name: str, wrong: Sequence[str], missing: Sequence[str], said: str) -> Check:
    """Return one check over many things: it lists all that are wrong, then all that are missing."""
    if wrong:
        return Check(name, False, "; ".join([*wrong, *missing]))
    return Check(name, None, "; ".join(missing)) if missing else Check(name, True, said)


def differences(recorded: Mapping[str, JSON], found: Mapping[str, JSON], *, more: bool = True) -> list[str]:
    """Return what differs between two mappings, by name. more: whether names that were not recorded count."""
    wrong = [
        f"{name} was {_short(value)}, is {_short(found[name]) if name in found else 'gone'}"
        for name, value in recorded.items()
        if name not in found or found[name] != value
    ]
    return wrong + [f"{name} was added" for name in found if more and name not in recorded]


def _short(value: JSON) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


@dataclass(frozen=True)
class Opened:
    """A copy that is whole. content: the bytes of ``dossier.json``."""

    dossier: Dossier
    content: bytes
    seal: Seal
    records: list[Record]
    forgotten: bytes


@dataclass
class VerificationContext:
    """One dossier under verification. project: where the rest of it may be. connected: MLflow; unreachable: why it cannot be queried.

    trusted: public keys (hex) that may have signed. memo: what MLflow has answered so far. erasures: what purges account for.
    """

    project: Project | None
    opened: Opened
    connected: MlflowClient | None
    unreachable: str
    trusted: Sequence[str]
    memo: dict[str, JSON] = field(default_factory=dict)
    erasures: Erasures | None = None

    def erased(self, digest: str) -> str | None:
        """Return the purge that erased the content with this SHA-256, in words; None where none did."""
        return self.erasures.file(digest) if self.erasures else None

    def without_erased(
        self, name: str, wrong: Sequence[str], missing: Sequence[str], erased: Sequence[str], said: str
    ) -> Check:
        """`summed`, where some things are gone because a purge erased them: no fault if that is accepted, else they cannot be checked."""
        if not erased:
            return summed(name, wrong, missing, said)
        words = f"{len(erased)} {erased[0]}"
        if self.erasures is not None and self.erasures.accepted:
            return summed(name, wrong, missing, f"{said}, {words}")
        return summed(name, wrong, [*missing, f"{words} (--sealed accepts that)"], said)

    @property
    def dossier(self) -> Dossier:
        return self.opened.dossier

    @property
    def seal(self) -> Seal:
        return self.opened.seal

    @property
    def records(self) -> list[Record]:
        return self.opened.records

    def record(self, stage: str) -> Record | None:
        return next((record for record in self.records if record.stage in stage.split("|")), None)

    def run(self) -> dict[str, JSON] | None:
        """Return what MLflow says about the run now; None when it is not there. MLflow is queried once."""
        if self.connected is None:
            return None
        if "run" not in self.memo:
            from megu.tracking import lineage

            self.memo["run"] = lineage.run_facts(self.connected, self.dossier.run.mlflow_run_id)
        found: dict[str, JSON] | None = self.memo["run"]
        return found

    def at_home(self) -> bool:
        """Return whether this project is the one the run was made in."""
        return self.run() is not None
