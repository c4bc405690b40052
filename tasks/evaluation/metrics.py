"""Evaluates the original, the unlearned model and the retrains side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from megu.core.files.store import without_nan
from megu.core.project import Project
from megu.core.stages import Code, Outcome, Result, Stage
from megu.evaluation.gate import DEEP_ASKED, GIVEN
from tasks.run import cached

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
    code: Code | None = None,
) -> Outcome:
    """before: the original's predictions. after, retrained: the predictions of the others, condensed for the split.

    shadows: for the per-sample attack, which is left out without them.
    relearned: the relearn times of the unlearned model and of each retrain, in that order; left out if empty. deeper: the deep
    checks of the same models. given: the retrain that was not trained here; None if it was. calibration: which test images are left out.
    code: of the metrics from other packages, for the cache key.
    """
    from megu import evaluation
    from megu.evaluation import own
    from megu.evaluation.attacks.shadows import Shadow, audit
    from megu.evaluation.comparison import against, alone, described
    from megu.evaluation.condensed import Condensed, condense
    from megu.unlearning.labels.calibration_set import left_to_measure

    whole = cached.dataset(project, data)
    measured, loaded, positions = left_to_measure(whole, cached.forget_split(project, split), calibration)
    fine = None if loaded.train.fine is None or loaded.test.fine is None else (loaded.train.fine, loaded.test.fine)
    witnesses = [
        replace(found, test=found.test[measured], seen_test=found.seen_test[measured])
        for found in (Shadow(**project.store.arrays(shadow.files["shadow"])) for shadow in shadows)
    ]
    arrays: dict[str, Any] = {}

    def score(said: Any, name: str | None, more: dict[str, Any]) -> evaluation.Score:
        """name: under which the distributions are stored; None if they are not."""
        asked = (said, loaded.train.labels, loaded.test.labels, positions)
        found = evaluation.score(*asked, loaded.num_classes, loaded.train.fine)
        metrics = {**found.metrics, **more, **own.measured(*asked)}
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
    # The original knows the forget set from the start.
    steps = [0, *(entry.values["steps"] for entry in relearned)] if relearned else []
    times = [{"relearn_steps": count} for count in steps] or [{}] * len(answers)
    # The original has no deep checks.
    checks = [{}, *(entry.values["metrics"] for entry in deeper)] if deeper else [{}] * len(answers)
    beside = [{**time, **found} for time, found in zip(times, checks, strict=True)]
    scores = [score(*entry) for entry in zip(answers, names, beside, strict=True)]
    models = list(zip(scores, answers, strict=True))
    values = described(whole, loaded, positions, models[1], models[0])
    values |= against(models[1], models[2:], models[0]) if retrained else alone(values, models[1], loaded, positions, models[0])
    if deeper:
        values[DEEP_ASKED] = deeper[0].values["asked"]
    if given:
        values["reference"][GIVEN] = given.files["weights"].sha256
    return Outcome(files={"distributions": project.store.put_arrays(arrays)}, values=without_nan(values))


def say(result: Result) -> str:
    marks = result.values["unlearned"]["metrics"]
    on = " (training images)" if result.values["Af_on"] == "train" else ""
    return f"Af {marks['Af']:.1f}%{on}, Ar {marks['Ar']:.1f}%" if marks["Af"] is not None and marks["Ar"] is not None else ""


EVALUATION = Stage("evaluation", "Compare before, after and retrain", evaluate, say)
