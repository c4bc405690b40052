"""Marks as a benchmark would have them, made of numbers that are easy to follow."""

from __future__ import annotations

from typing import Any

from megu.bench.scores import CellScore


def mark(method: str, target: str = "Bag", seed: int = 0, *, error: str | None = None, **changes: Any) -> CellScore:
    """An unlearned model as the retrain, but for the given metrics of its own."""
    reference = {"Ar": 90.0 + seed, "Af": 0.0, "MIA": 10.0 + seed, "Ar_train": 100.0, "Af_train": 0.0, "test_accuracy": 81.0}
    if error:
        return CellScore(method=method, algorithm=method, target=target, seed=seed, error=error)
    unlearned = {**reference, **{name: value for name, value in changes.items() if name in reference}}
    gap = sum(abs(unlearned[name] - reference[name]) for name in ("Ar", "Af", "MIA")) / 3
    return CellScore(
        method=method,
        algorithm=changes.get("algorithm", method),
        target=target,
        seed=seed,
        swept=changes.get("swept"),
        original={**reference, "Af": 96.0, "MIA": 70.0 + seed, "Af_train": 100.0},
        unlearned=unlearned | changes.get("further", {}),
        reference=reference,
        comparison={"gap": gap, "ToW": 1.0, "JS_forget": 0.1},
        seconds={"unlearn": 3.0, "noise": 1.0, "reference": 10.0 + 10 * seed},
        time_share=changes.get("time_share", 40.0),
        pass_share=changes.get("pass_share", 0.4),
        peak_mib=800.0,
        computed=2,
        kept=10,
    )
