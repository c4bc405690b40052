"""How dossiers of format 1 were evaluated before there was a gate: by two thresholds, and a missing metric failed nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def failures(evaluation: Mapping[str, Any], forgotten: float, near: float) -> list[str]:
    """Return what the comparison with the retrain does not allow; empty when nothing fails, or when there is no retrain."""
    after, reference = evaluation["unlearned"]["metrics"], (evaluation.get("reference") or {}).get("metrics")
    if reference is None:
        return []
    failed = []
    if after["Af"] is not None and reference["Af"] is not None and after["Af"] > max(forgotten, reference["Af"] + forgotten):
        failed.append("NOT forgotten")
    if after["Ar"] is not None and reference["Ar"] is not None and after["Ar"] < reference["Ar"] - near:
        failed.append(f"{reference['Ar'] - after['Ar']:.1f} points of the rest LOST")
    return failed
