"""Names and times that all exports share."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from megu.lineage.dossier import Dossier
from megu.lineage.record import Record

JSON = Any


def pretty(value: JSON) -> bytes:
    """Return JSON that a person can also read; equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def producer(dossier: Dossier) -> str:
    """Return the program that made the run, as a package URL."""
    return f"pkg:generic/megu@{dossier.environment['version.megu']}"


def model(dossier: Dossier) -> tuple[str, str] | None:
    """Return name and version of the registered model; None when none was registered."""
    version = dossier.tracked.version
    return (str(version["name"]), str(version["version"])) if version else None


def tries(dossier: Dossier) -> str:
    """Return what a reader must know of the models that the gate turned down before this one, as sentences; empty where there is none.

    Of several models that are compared with one retrain, the one that passes is chosen by its figures; trained without the data, it is not.
    """
    turned_down = sum(rung.ran and rung.outcome == "fail" for rung in dossier.ladder[:-1])
    if not turned_down:
        return ""
    one = turned_down == 1
    said = (
        f"Before this model {'another one was' if one else f'{turned_down} others were'} made for the same request; "
        f"{'it' if one else 'they'} fell short of the rules and {'is' if one else 'are'} not used."
    )
    if dossier.claim.level == "exact" or dossier.ladder[-1].outcome == "fail":
        return said
    return f"{said} Of several tries one can meet the rules by chance, and its figures are then better than the model is."


def dvc_digest(dossier: Dossier) -> str:
    """Return DVC's hash of the data set's folder without its suffix: the MD5 of its list of files."""
    return dossier.data.dvc_hash.removesuffix(".dir")


def began(dossier: Dossier) -> datetime:
    """Return when the MLflow run began (UTC)."""
    return datetime.fromtimestamp(dossier.tracked.run["started"] / 1000, UTC)


def ended(dossier: Dossier) -> datetime:
    """Return when the dossier was sealed (UTC)."""
    return datetime.fromisoformat(dossier.run.created)


def computed(record: Record) -> tuple[datetime, datetime]:
    """Return when the computation of a result began and ended, in this run or in the one it was cached from (UTC, to the second)."""
    made = datetime.fromisoformat(record.circumstances["origin"]["created"])
    return made - timedelta(seconds=float(record.circumstances["seconds_computed"])), made


def iso(time: datetime) -> str:
    """Return the time as RFC 3339 to the millisecond, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settings(record: Record) -> dict[str, JSON]:
    """Return the parts of a record's key that are neither code nor earlier results: parameters, seeds, device class."""
    other = ("code ", "input ", "package ")
    return {name: value for name, value in record.parts.items() if not name.startswith(other) and name != "format"}
