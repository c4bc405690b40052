"""Why two runs differ: data, code, parameters, labeler, environment and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megu.lineage.dossier import Dossier
from megu.lineage.record import Record
from megu.lineage.verify.context import differences
from megu.tracking import flat

GROUPS = ("data", "request", "code", "parameters", "labeler", "seeds", "environment", "models", "metrics")


def diff(
    before: Dossier, after: Dossier, records_before: Sequence[Record], records_after: Sequence[Record]
) -> dict[str, list[str]]:
    """Return the differences in words, by group; a group in which nothing differs is empty."""
    pairs: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "data": (_data(before), _data(after)),
        "request": (_request(before), _request(after)),
        "code": (_code(records_before), _code(records_after)),
        "parameters": (_parameters(before), _parameters(after)),
        "labeler": (before.labeler or {}, after.labeler or {}),
        "seeds": (before.seeds, after.seeds),
        "environment": (before.environment | before.device, after.environment | after.device),
        "models": (vars(before.models), vars(after.models)),
        "metrics": (before.evidence.evaluation["unlearned"]["metrics"], after.evidence.evaluation["unlearned"]["metrics"]),
    }
    return {group: differences(*pairs[group]) for group in GROUPS}


def _data(dossier: Dossier) -> dict[str, Any]:
    return {key: getattr(dossier.data, key) for key in ("name", "dvc_hash", "train", "test")}


def _request(dossier: Dossier) -> dict[str, Any]:
    scope = {key: getattr(dossier.scope, key) for key in ("forget", "retain", "split")}
    return {key: value for key, value in dossier.request.items() if key != "words"} | scope


def _code(records: Sequence[Record]) -> dict[str, str]:
    return {
        part.removeprefix("code "): str(value)[:12]
        for record in records
        for part, value in record.parts.items()
        if part.startswith("code ")
    }


def _parameters(dossier: Dossier) -> dict[str, Any]:
    return {key: value for key, value in flat(dossier.parameters).items() if not key.startswith(("forget.", "seed"))}
