"""Marks the original, the unlearned model and the retrains side by side."""

from __future__ import annotations

from typing import Any

from megu.project import Project
from megu.stages import Outcome, Result, Stage
from megu.store import without_nan
from tasks import kept


def evaluate(project: Project, data: Result, split: Result, before: Result, after: Result, retrained: list[Result]) -> Outcome:
    import numpy as np

    from megu import evaluation

    loaded = kept.dataset(project, data)
    positions = kept.forget_split(project, split)

    def mark(predictions: Result) -> evaluation.Score:
        answers = project.store.arrays(predictions.files["predictions"])
        return evaluation.score(
            answers["train_logits"],
            loaded.train.labels,
            answers["test_logits"],
            loaded.test.labels,
            positions,
            loaded.num_classes,
        )

    scores = {"original": mark(before), "unlearned": mark(after)}
    marks = [mark(entry) for entry in retrained]
    if marks:
        scores["reference"] = marks[0]
    values: dict[str, Any] = {name: {"metrics": score.metrics, "per_class": score.per_class} for name, score in scores.items()}
    if marks:
        spread = evaluation.spread([entry.metrics for entry in marks])
        means = {name: entry["mean"] for name, entry in spread.items()}
        unlearned = project.store.arrays(after.files["predictions"])
        reference = project.store.arrays(retrained[0].files["predictions"])
        values["reference"] = {"metrics": means, "per_class": np.mean([entry.per_class for entry in marks], axis=0).tolist()}
        values["comparison"] = {
            # To the retrain of the run's own seed, as the claims of the method are made; the spread says how much that varies.
            "gap": evaluation.gap(scores["unlearned"].metrics, marks[0].metrics),
            "gap_original": evaluation.gap(scores["original"].metrics, marks[0].metrics),
            "ToW": evaluation.tow(scores["unlearned"].metrics, marks[0].metrics),
            "JS_forget": evaluation.js_divergence(
                unlearned["train_logits"][positions.forget], reference["train_logits"][positions.forget]
            ),
        }
        values["spread"] = spread if len(marks) > 1 else {}
    arrays = {
        f"{name}/{kind}/{group}": entries
        for name, score in scores.items()
        for kind in ("confidence", "entropy")
        for group, entries in getattr(score, kind).items()
    }
    return Outcome(files={"distributions": project.store.put_arrays(arrays)}, values=without_nan(values))


def say(result: Result) -> str:
    marks = result.values["unlearned"]["metrics"]
    return f"Af {marks['Af']:.1f}%, Ar {marks['Ar']:.1f}%" if marks["Af"] is not None and marks["Ar"] is not None else ""


EVALUATION = Stage("evaluation", "Compare before, after and retrain", evaluate, say)
