"""The names of a run's metrics in MLflow, which groups its charts by the part before the last "/".

The unlearned model's are grouped by subject (``Metric.group``): forgotten/Af, attack/MIA, deep/probe. The original and the retrains each
have a group with the same metric names, and the comparison of them has a group, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from megu.evaluation.guide import OWN
from megu.evaluation.own import explained

#: Groups that are not the unlearned model's.
ORIGINAL, REFERENCE, COMPARISON, COST = "original", "reference", "comparison", "cost"
SECONDS, COMPUTED, MEMORY = "seconds", "seconds_computed", "peak_memory_bytes"
#: The last one is a group of older runs only, a one or a zero for each stage.
OTHERS = frozenset(
    {ORIGINAL, REFERENCE, "reference_low", "reference_high", COMPARISON, COST, SECONDS, COMPUTED, MEMORY, "cached"}
)

#: Metrics of the cost, by the names that they have without a group in runs older than the groups.
SHARES = ("time_share", "pass_share", "peak_mib")


def models(
    unlearned: Mapping[str, Any],
    original: Mapping[str, Any],
    reference: Mapping[str, Any],
    comparison: Mapping[str, Any],
    spread: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, float]:
    """Return the metrics of a run's models by their names in MLflow; undefined ones (None, NaN) are left out.

    reference: means over the retrains. comparison: gap, ToW, JS_forget, JS_test; "…_original" of the original, "…_reference" of the other
    retrains, to the first. spread: of several retrains, by metric, the ends "low" and "high" of the 95% interval.
    """
    known = explained()

    def subject(name: str) -> str:
        group = known[name].group if name in known else OWN
        return OWN if group in OTHERS else group

    every = {f"{subject(name)}/{name}": value for name, value in unlearned.items()}
    groups = {ORIGINAL: original, REFERENCE: reference, COMPARISON: comparison}
    for side in ("low", "high"):
        groups[f"{REFERENCE}_{side}"] = {name: entry[side] for name, entry in (spread or {}).items()}
    every |= {f"{group}/{name}": value for group, metrics in groups.items() for name, value in metrics.items()}
    return {name: float(value) for name, value in every.items() if value is not None and not math.isnan(value)}


def of_unlearned(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the unlearned model's metrics among those of an MLflow run, by name, including runs older than the groups."""
    own = {name: value for name, value in metrics.items() if name.partition("/")[0] not in OTHERS and name not in SHARES}
    return {name.rpartition("/")[2]: value for name, value in own.items()}
