"""Marks the original, the unlearned model and the retrains side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from megu.core.files.store import without_nan
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.evaluation.gate import DEEP_ASKED, GIVEN
from tasks.run import kept

if TYPE_CHECKING:
    from megu.unlearning.labels.calibration_set import CalibrationParams


def evaluate(
    project: Project,
    data: Result,
    split: Result,
    before: Result,
    after: Result,
    retrained: list[Result],
    shadows: list[Result],
    relearned: list[Result],
    deeper: list[Result],
    given: Result | None,
    calibration: CalibrationParams,
) -> Outcome:
    """before: what the original answers. after, retrained: what the others answer, condensed for the split.

    shadows: for the per-sample attack; none leaves it out.
    relearned: the relearn times of the unlearned model and of each retrain, in that order; none leaves them out. deeper: the deep
    checks of the same models. given: the retrain that was not trained here; None where it was. calibration: which test images are left out.
    """
    from megu import evaluation
    from megu.evaluation.attacks.shadows import Shadow, audit
    from megu.evaluation.condensed import Condensed, condense
    from megu.unlearning.labels.calibration_set import left_to_measure

    whole = kept.dataset(project, data)
    measured, loaded, positions = left_to_measure(whole, kept.forget_split(project, split), calibration)
    fine = None if loaded.train.fine is None or loaded.test.fine is None else (loaded.train.fine, loaded.test.fine)
    witnesses = [
        replace(found, test=found.test[measured], seen_test=found.seen_test[measured])
        for found in (Shadow(**project.store.arrays(shadow.files["shadow"])) for shadow in shadows)
    ]
    arrays: dict[str, Any] = {}

    def mark(said: Any, name: str | None, more: dict[str, Any]) -> evaluation.Score:
        """name: under which the distributions are kept; None where they are not."""
        asked = (said, loaded.train.labels, loaded.test.labels, positions)
        found = evaluation.score(*asked, loaded.num_classes, loaded.train.fine)
        metrics = {**found.metrics, **more}
        drawn: dict[str, dict[str, Any]] = {"confidence": found.confidence, "entropy": found.entropy}
        if witnesses:
            attacked = audit(*asked, witnesses, fine)
            metrics |= attacked.metrics
            drawn["rmia"] = {"forget": attacked.forget, "test": attacked.test}
        if name:
            arrays.update(
                {f"{name}/{kind}/{group}": entries for kind, groups in drawn.items() for group, entries in groups.items()}
            )
        return replace(found, metrics=metrics)

    whole_logits = project.store.arrays(before.files["predictions"])
    answers = [
        replace(said, test=said.test[measured])
        for said in (
            condense(whole_logits["train_logits"], whole_logits["test_logits"], positions.forget),
            *(Condensed(**project.store.arrays(entry.files["condensed"])) for entry in (after, *retrained)),
        )
    ]
    names = ["original", "unlearned", *(["reference"] if retrained else []), *[None] * (len(retrained) - 1)]
    # The original knows it all from the start.
    steps = [0, *(entry.values["steps"] for entry in relearned)] if relearned else []
    times = [{"relearn_steps": count} for count in steps] or [{}] * len(answers)
    # Of the original nobody asks what it holds.
    checks = [{}, *(entry.values["metrics"] for entry in deeper)] if deeper else [{}] * len(answers)
    beside = [{**time, **found} for time, found in zip(times, checks, strict=True)]
    scores = [mark(*entry) for entry in zip(answers, names, beside, strict=True)]
    values: dict[str, Any] = {
        "classes": list(loaded.classes),
        evaluation.AF_ON: evaluation.measured_on(positions),
        evaluation.TEST_IMAGES: {"measured": len(measured), "calibration": len(whole.test) - len(measured)},
    } | {
        name: {"metrics": found.metrics, "per_class": found.per_class}
        for name, found in zip(("original", "unlearned"), scores, strict=False)
    }
    if retrained:
        values |= against(scores, answers)
    else:
        values = alone(values, answers, loaded, positions)
    if deeper:
        values[DEEP_ASKED] = deeper[0].values["asked"]
    if given:
        values["reference"][GIVEN] = given.files["weights"].sha256
    return Outcome(files={"distributions": project.store.put_arrays(arrays)}, values=without_nan(values))


def alone(values: dict[str, Any], answers: list[Any], loaded: Any, positions: Any) -> dict[str, Any]:
    """The values with what can be said without a retrain: original and unlearned model on held-out images, and class by class on the
    retained test images."""
    from megu.evaluation import held_out

    test, count = loaded.test.labels, loaded.num_classes
    chosen = held_out.of(loaded, positions)
    made = {**values, held_out.HELD_OUT: held_out.counts(positions, chosen, test, count)}
    for name, said in zip(("original", "unlearned"), answers, strict=False):
        found = held_out.score(said, test, positions, chosen)
        made[name] = {
            **values[name],
            "metrics": {**values[name]["metrics"], **found},
            "per_class_retained": held_out.per_class(said.test, test, positions, count),
        }
    return made


def against(scores: list[Any], answers: list[Any]) -> dict[str, Any]:
    """The original, the unlearned model and the other retrains (in that order) against the first retrain, and the retrains' spread.

    To the retrain of the run's own seed, as the claims of the method are made; the spread says how much that varies.
    """
    import numpy as np

    from megu import evaluation

    marks = [entry.metrics for entry in scores[2:]]
    compared = [
        evaluation.compared(found.metrics, said, marks[0], answers[2]) for found, said in zip(scores, answers, strict=True)
    ]
    comparison = compared[1] | {f"{name}_original": value for name, value in compared[0].items()}
    if len(marks) > 1:
        others = evaluation.mean_of(compared[3:])
        comparison |= {f"{name}_reference": value for name, value in others.items()}
    return {
        "reference": {
            "metrics": evaluation.mean_of(marks),
            "per_class": np.mean([entry.per_class for entry in scores[2:]], axis=0).tolist(),
        },
        "comparison": comparison,
        "spread": evaluation.spread(marks) if len(marks) > 1 else {},
    }


def say(result: Result) -> str:
    marks = result.values["unlearned"]["metrics"]
    on = " (training images)" if result.values["Af_on"] == "train" else ""
    return f"Af {marks['Af']:.1f}%{on}, Ar {marks['Ar']:.1f}%" if marks["Af"] is not None and marks["Ar"] is not None else ""


EVALUATION = Stage("evaluation", "Compare before, after and retrain", evaluate, say)
