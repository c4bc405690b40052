"""The rungs of a ladder, as recorded in the dossiers of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megu.evaluation.summary import SPENT, Rung
from megu.lineage.dossier import Dossier
from megu.lineage.record import Record


def rung_of(dossier: Dossier, records: Sequence[Record], seal: str = "") -> Rung:
    """Rebuild a dossier's rung from its evidence and its records; ``seconds`` is copied from the dossier's own entry.

    seal: the dossier's. Raises ``IndexError`` for a dossier that is on no ladder.
    """
    said, own = dossier.ladder[-1], dossier.parameters["unlearn"]
    assert dossier.evidence.gate is not None
    spent: list[dict[str, Any]] = [dict(record.circumstances)["notes"] for record in records if record.stage in SPENT]
    tracked = dossier.tracked.version
    return Rung(
        number=len(dossier.ladder),
        method=dossier.method["name"],
        params={name: value for name, value in own.items() if name != "method"},
        outcome=dossier.evidence.gate.decision,
        says=dossier.evidence.failures,
        metrics=dossier.evidence.evaluation["unlearned"]["metrics"],
        seconds=said.seconds,
        compute_seconds=float(sum(notes["compute_seconds"] for notes in spent)),
        passes=int(sum(notes["passes"] for notes in spent)),
        mlflow_run_id=dossier.run.mlflow_run_id,
        seal=seal,
        version=f"models:/{tracked['name']}/{tracked['version']}" if tracked else "",
    )
