"""The gate: whether a model that was made to forget may be promoted, by rules on its evidence alone.

Every rule compares with the true retrain, since after forgetting a model should behave like one that never saw the data (DESIGN: the
thresholds are in ``params.yaml``; those applied are stored in the dossier). Where there is no retrain at all, rules that can be judged
against the original, chance or held-out images are; the rest are named as not judged, and the decision is a different one
(`WITHOUT_RETRAIN`). Pure: evidence and thresholds in, a `Verdict` out; a missing metric fails. This module needs only the standard library.

One file because a rule, its threshold and its words are read and changed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from megu.core.params import STRICT, check

#: How many classes a reason has room for.
_NAMED = 3

#: The decision where every rule that can be judged without a retrain holds; never a "pass".
WITHOUT_RETRAIN: Literal["passes without a retrain"] = "passes without a retrain"
#: How the reason begins of a rule that is not judged for want of a retrain.
NOT_JUDGED = "not judged: no retrain"

Decision = Literal["pass", "needs a person", "passes without a retrain", "fail"]
Evaluation = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GateParams:
    """What the comparison with the retrain allows, in points (accuracies and attacks are in percent).

    forget_margin: points that accuracy on forgotten images (test, training, and single ones beside classes) may lie above the
        retrain's.
    retain_drop: points that accuracy on retained test images may lie below the retrain's.
    class_drop: the same for each class alone.
    mia_band: points that MIA, the entropy attack's score, may lie above or below the retrain's: above, too many are still recognised;
        below, so few that the forgetting itself shows.
    attack_margin: points by which the shadow attack may find more than the retrain's share at 1% false alarms, where it is measured.
    attack_required: whether a run without the shadow attack fails.
    deep_margin: points that each of the deep checks (``evaluation.deep``) may bring back above the retrain's, where they are
        measured.
    min_seeds: the least number of retrains of different seeds (``reference.repeats``).
    min_images: without a retrain, the least number of forgotten and of held-out images for comparing them with each other; also the
        least number of forgotten images for judging the deep checks.
    """

    __pydantic_config__ = STRICT

    forget_margin: float = 1.0
    retain_drop: float = 1.5
    class_drop: float = 5.0
    mia_band: float = 10.0
    attack_margin: float = 5.0
    attack_required: bool = False
    deep_margin: float = 12.0
    min_seeds: int = 1
    min_images: int = 100

    def __post_init__(self) -> None:
        for name in ("forget_margin", "retain_drop", "class_drop", "mia_band", "attack_margin", "deep_margin"):
            value = getattr(self, name)
            check(name, value, 0 <= value <= 100, "points between 0 and 100")
        check("min_seeds", self.min_seeds, 1 <= self.min_seeds <= 100, "between 1 and 100")
        check("min_images", self.min_images, self.min_images >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """The result of one rule. holds: None where it does not apply, or is not judged for want of a retrain (`not_judged`). value: what was
    found; low, high: the range allowed; None: missing, or no such bound.

    reason: why, for a person.
    """

    __pydantic_config__ = STRICT

    rule: str
    holds: bool | None
    value: float | None
    low: float | None
    high: float | None
    reason: str

    @property
    def not_judged(self) -> bool:
        """Whether it needs a retrain, and there is none."""
        return self.holds is None and self.reason.startswith(NOT_JUDGED)

    @property
    def of_any_model(self) -> bool:
        """Whether it fails whatever the model is: another run with the same settings cannot fix it."""
        unmeasured = self.reason.startswith("not measured") and self.reason.endswith("retrain")
        return self.holds is False and (self.rule == "seeds" or unmeasured)

    @property
    def about_forgetting(self) -> bool:
        """Whether it judges that what had to be forgotten is forgotten."""
        return self.rule.startswith("forgotten") or self.rule in ("MIA", "shadow attack", *DEEP)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """decision: "pass"; "fail" when any rule fails; "needs a person" when all hold and there is no champion to take over from, since the
    first model is never promoted automatically; "passes without a retrain" when there is none and everything that can be judged holds: a
    person decides."""

    __pydantic_config__ = STRICT

    decision: Decision
    rules: list[RuleResult]

    @property
    def failures(self) -> list[str]:
        """Why it fails, one reason per failed rule."""
        return [rule.reason for rule in self.rules if rule.holds is False]

    @property
    def still_remembered(self) -> bool:
        """Whether it fails because what had to be forgotten is still known."""
        return any(
            rule.holds is False and None not in (rule.value, rule.high) and float(rule.value or 0) > float(rule.high or 0)
            for rule in self.rules
            if rule.about_forgetting
        )


def decide(evaluation: Evaluation, params: GateParams, *, champion: str | None) -> Verdict:
    """Apply every rule.

    evaluation: the values of the evaluation stage (`tasks.evaluation.metrics`), as a dossier stores them. champion: the version that has the
    alias now; None without one.
    """
    alone = without_retrain(evaluation)
    rules = [found for rule in (ALONE if alone else RULES) if (found := rule(evaluation, params)) is not None]
    if alone:
        rules.insert(0, something_is_judged(evaluation, rules))
    if any(rule.holds is False for rule in rules):
        return Verdict(decision="fail", rules=rules)
    if alone:
        return Verdict(decision=WITHOUT_RETRAIN, rules=rules)
    return Verdict(decision="pass" if champion else "needs a person", rules=rules)


def evidence_is_there(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Require that original, unlearned model and retrain were all measured."""
    missing = [name for name in ("original", "unlearned", "reference") if not _marks(evaluation, name)]
    said = f"not measured: {', '.join(missing)}" if missing else "original, unlearned model and retrain were measured"
    return RuleResult(rule="evidence", holds=not missing, value=3.0 - len(missing), low=3.0, high=None, reason=said)


def seeds(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Require enough retrains of different seeds."""
    spread = evaluation.get("spread") or {}
    count = int(spread["Af"]["n"]) if "Af" in spread else 1 if _marks(evaluation, "reference") else 0
    few = count < params.min_seeds
    return RuleResult(
        rule="seeds",
        holds=not few,
        value=float(count),
        low=float(params.min_seeds),
        high=None,
        reason=f"{'only ' if few else ''}{count} {'retrain' if count == 1 else 'retrains'}",
    )


def on_training(evaluation: Evaluation) -> bool:
    """Whether Af is, for want of test images of what was forgotten, the accuracy on the forgotten training images. Evaluations by older
    versions do not say (`megu.evaluation.AF_ON`)."""
    return evaluation.get("Af_on") == "train"


#: Key in an evaluation's "reference": the SHA-256 of the weights, where the retrain was given.
GIVEN = "given"


def provided_retrain(evaluation: Evaluation) -> str | None:
    """Return the SHA-256 of the weights of a given retrain, whose training nobody here saw; None where it was trained here, or there is
    none."""
    found = (evaluation.get("reference") or {}).get(GIVEN)
    return str(found) if found else None


def forgotten_test(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Hold Af to the retrain's. Without test images of what was forgotten it does not apply; the training images are always judged."""
    if on_training(evaluation):
        why = "there are no test images of it; judged by its training images alone"
        return RuleResult(rule="forgotten, test", holds=None, value=None, low=None, high=None, reason=why)
    return bounded(
        evaluation, "forgotten, test", "Af", above=params.forget_margin, reason=_says("NOT forgotten", "as the retrain has it")
    )


def forgotten_train(evaluation: Evaluation, params: GateParams) -> RuleResult:
    return bounded(
        evaluation,
        "forgotten, train",
        "Af_train",
        above=params.forget_margin,
        reason=_says("training images NOT forgotten", "as the retrain has it"),
    )


def forgotten_single(evaluation: Evaluation, params: GateParams) -> RuleResult | None:
    """Judge separately the single samples of a request that also names whole classes, whose many more images would hide them. None for
    other requests."""
    if not any("Af_single" in _marks(evaluation, name) for name in ("unlearned", "reference")):
        return None
    said = _says("single images NOT forgotten", "as the retrain has it")
    return bounded(evaluation, "forgotten, single images", "Af_single", above=params.forget_margin, reason=said)


def retained(evaluation: Evaluation, params: GateParams) -> RuleResult:
    def reason(value: float, reference: float, holds: bool) -> str:
        return (
            f"{value - reference:+.1f} points to the retrain" if holds else f"{reference - value:.1f} points of the rest LOST"
        )

    return bounded(evaluation, "retained, test", "Ar", below=params.retain_drop, reason=reason)


def classes(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Require that no class's test accuracy is far below the retrain's, which has learned nothing of a forgotten class."""
    return _classes(evaluation, params, "per_class", "reference", "the retrain")


def _classes(evaluation: Evaluation, params: GateParams, key: str, other: str, title: str) -> RuleResult:
    """Hold each class to another model's. key: of the accuracies. value: the largest drop in points.

    A class for which neither model has an accuracy has no test images.
    """
    ours, theirs = ((evaluation.get(name) or {}).get(key) or [] for name in ("unlearned", other))
    names = evaluation.get("classes") or [f"class {k}" for k in range(len(theirs))]
    pairs = list(zip(names, ours, theirs, strict=False))
    unmarked = [name for name, one, other in pairs if (_number(one) is None) != (_number(other) is None)]
    drops = {name: other - one for name, one, other in pairs if _number(one) is not None and _number(other) is not None}
    made: dict[str, Any] = {"rule": "each class, test", "low": None, "high": params.class_drop}
    if not len(ours) == len(theirs) == len(names) or not drops or unmarked:
        what = f" of {', '.join(unmarked)}" if unmarked else ""
        return RuleResult(holds=False, value=None, reason=f"not measured: the accuracy of each class{what}", **made)
    falling = sorted(drops, key=lambda name: (-drops[name], name))
    lost = [f"{drops[name]:.1f} points of {name} LOST" for name in falling if drops[name] > params.class_drop]
    worst = falling[0]
    said = ", ".join(lost[:_NAMED]) + (f" and of {len(lost) - _NAMED} classes more" if len(lost) > _NAMED else "")
    said = said or f"{worst} {-drops[worst]:+.1f} points to {title}"
    return RuleResult(holds=not lost, value=drops[worst], reason=said, **made)


def membership(evaluation: Evaluation, params: GateParams) -> RuleResult:
    def reason(value: float, reference: float, holds: bool) -> str:
        side = "STILL RECOGNISED" if value > reference else "OVER-FORGOTTEN"
        said = f"{value - reference:+.1f} points to the retrain"
        return said if holds else f"{side}: MIA {said}"

    return bounded(evaluation, "MIA", "MIA", above=params.mia_band, below=params.mia_band, reason=reason)


def attack(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Judge the share that the shadow attack finds at 1% false alarms; a partial measurement counts as missing."""
    measured = any("RMIA_TPR_1" in _marks(evaluation, name) for name in ("original", "unlearned", "reference"))
    if not measured and not params.attack_required:
        return RuleResult(
            rule="shadow attack", holds=None, value=None, low=None, high=None, reason="not asked for (evaluation.shadows)"
        )

    def reason(value: float, reference: float, holds: bool) -> str:
        said = f"{value:.1f}% found at 1% false alarms (retrain {reference:.1f}%)"
        return said if holds else f"STILL RECOGNISED: {said}"

    return bounded(evaluation, "shadow attack", "RMIA_TPR_1", above=params.attack_margin, reason=reason)


#: The rules about what is below the last layer (`megu.evaluation.deep`): the metric of each, and its text where it fails.
DEEP = {
    "probe": ("probe", "a linear probe of its features gets"),
    "relearned from the rest": ("relearn_retain", "relearning from the retain set alone brings back"),
    "relearned from a few": ("relearn_few", "relearning from a few forgotten images brings back"),
}
#: Key of an evaluation: how many forgotten images the deep checks asked about.
DEEP_ASKED = "deep_asked"


def deep(rule: str) -> Callable[[Evaluation, GateParams], RuleResult | None]:
    """Make one of the rules in `DEEP`: at most so many points above the retrain's. It returns None where nothing was measured, and does not
    apply where too few images were asked about, whose shares differ by chance."""
    metric, brings = DEEP[rule]

    def judged(evaluation: Evaluation, params: GateParams) -> RuleResult | None:
        if not _measured_deep(evaluation):
            return None
        asked = int(evaluation.get(DEEP_ASKED) or 0)
        if asked < params.min_images:
            few = f"{asked:,} forgotten images are too few to compare (gate.min_images = {params.min_images})"
            return RuleResult(rule=rule, holds=None, value=None, low=None, high=None, reason=few)

        def reason(value: float, reference: float, holds: bool) -> str:
            said = f"{value:.1f}% (retrain {reference:.1f}%)"
            return said if holds else f"ONLY HIDDEN: {brings} {said}"

        return bounded(evaluation, rule, metric, above=params.deep_margin, reason=reason)

    return judged


def deep_alone(rule: str) -> Callable[[Evaluation, GateParams], RuleResult | None]:
    """Leave the rule unjudged: only a retrain shows how well its features distinguish what it never saw."""
    return lambda evaluation, params: _not_judged(rule) if _measured_deep(evaluation) else None


def _measured_deep(evaluation: Evaluation) -> bool:
    found = [_marks(evaluation, name) for name in ("unlearned", "reference")]
    return any(metric in marks for marks in found for metric, _ in DEEP.values())


#: A rule returns None where the evaluation has nothing for it.
RULES: Sequence[Callable[[Evaluation, GateParams], RuleResult | None]] = (
    evidence_is_there,
    seeds,
    forgotten_test,
    forgotten_train,
    forgotten_single,
    retained,
    classes,
    membership,
    attack,
    *map(deep, DEEP),
)


def bounded(
    evaluation: Evaluation,
    rule: str,
    metric: str,
    *,
    above: float | None = None,
    below: float | None = None,
    reason: Callable[[float, float, bool], str],
) -> RuleResult:
    """Hold one metric of the unlearned model to the retrain's: at most so many points above it, at most so many below.

    reason: explains the result, from value, retrain's value and whether the rule holds.
    """
    value, reference = (_number(_marks(evaluation, name).get(metric)) for name in ("unlearned", "reference"))
    if value is None or reference is None:
        which = " and ".join(name for name, found in (("unlearned model", value), ("retrain", reference)) if found is None)
        return RuleResult(rule=rule, holds=False, value=value, low=None, high=None, reason=f"not measured: {metric} of {which}")
    return _within(rule, value, reference, above, below, reason)


def _within(
    rule: str,
    value: float,
    standard: float,
    above: float | None,
    below: float | None,
    reason: Callable[[float, float, bool], str],
) -> RuleResult:
    """Hold a value to a standard: at most so many points above it, at most so many below."""
    low = None if below is None else standard - below
    high = None if above is None else standard + above
    holds = (low is None or value >= low) and (high is None or value <= high)
    return RuleResult(rule=rule, holds=holds, value=value, low=low, high=high, reason=reason(value, standard, holds))


def without_retrain(evaluation: Evaluation) -> bool:
    """Whether there was no retrain, and original and held-out images were measured in its place. Evaluations by older versions without a
    retrain have neither, and fail."""
    return "held_out" in evaluation and not evaluation.get("reference")


def something_is_judged(evaluation: Evaluation, rules: Sequence[RuleResult]) -> RuleResult:
    """Require that original and unlearned model were measured, and that some rule judges the forgetting."""
    missing = [name for name in ("original", "unlearned") if not _marks(evaluation, name)]
    found = 2.0 - len(missing)
    said = "original and unlearned model were measured; there is no retrain"
    if missing:
        said = f"not measured: {', '.join(missing)}"
    elif judged := [rule for rule in rules if rule.about_forgetting and rule.holds is not None]:
        said += f", so {', '.join(rule.rule for rule in judged)} is judged by chance or by held-out images"
    else:
        missing = ["forgetting"]
        said = "nothing says whether it was forgotten: there is no retrain, and nothing that can take its place"
    return RuleResult(rule="evidence", holds=not missing, value=found, low=2.0, high=None, reason=said)


def seeds_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Fail where several retrains are required and there is none; otherwise not judged."""
    return seeds(evaluation, params) if params.min_seeds > 1 else _not_judged("seeds")


def forgotten_test_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Hold whole classes to chance: a retrain has no answer for them. For a part of a class only a retrain can show what is right."""
    rule, chance = "forgotten, test", _number(evaluation["held_out"].get("chance"))
    if on_training(evaluation):
        return forgotten_test(evaluation, params)
    if chance is None:
        return _not_judged(rule)
    return _held(evaluation, rule, "Af", chance, above=params.forget_margin, reason=_says("NOT forgotten", "not above chance"))


def forgotten_train_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    return _held_out(
        evaluation,
        params,
        "forgotten, train",
        "Af_train",
        "Af_held_out",
        params.forget_margin,
        None,
        "training images NOT forgotten:",
    )


def forgotten_single_alone(evaluation: Evaluation, params: GateParams) -> RuleResult | None:
    return _not_judged("forgotten, single images") if "Af_single" in _marks(evaluation, "unlearned") else None


def retained_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    def reason(value: float, standard: float, holds: bool) -> str:
        return f"{value - standard:+.1f} points to the original" if holds else f"{standard - value:.1f} points of the rest LOST"

    standard = _number(_marks(evaluation, "original").get("Ar"))
    return _held(evaluation, "retained, test", "Ar", standard, below=params.retain_drop, reason=reason)


def classes_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Require that no class's accuracy on retained test images is far below the original's."""
    return _classes(evaluation, params, "per_class_retained", "original", "the original")


def membership_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    return _held_out(
        evaluation, params, "MIA", "MIA", "MIA_held_out", params.mia_band, params.mia_band, "STILL RECOGNISED: MIA"
    )


def attack_alone(evaluation: Evaluation, params: GateParams) -> RuleResult:
    """Judge the shadow attack, whose false alarms are counted on held-out images of the same classes: of what the model never saw it finds
    1% at 1%."""
    if not params.attack_required and not any("RMIA_TPR_1" in _marks(evaluation, name) for name in ("original", "unlearned")):
        return attack(evaluation, params)

    def reason(value: float, standard: float, holds: bool) -> str:
        return f"{'' if holds else 'STILL RECOGNISED: '}{value:.1f}% found at 1% false alarms"

    return _held(evaluation, "shadow attack", "RMIA_TPR_1", 1.0, above=params.attack_margin, reason=reason)


#: The rules for an evaluation without a retrain, by the same names; applied after `something_is_judged`.
ALONE: Sequence[Callable[[Evaluation, GateParams], RuleResult | None]] = (
    seeds_alone,
    forgotten_test_alone,
    forgotten_train_alone,
    forgotten_single_alone,
    retained_alone,
    classes_alone,
    membership_alone,
    attack_alone,
    *map(deep_alone, DEEP),
)


def _held_out(
    evaluation: Evaluation,
    params: GateParams,
    rule: str,
    metric: str,
    standard: str,
    above: float,
    below: float | None,
    fails: str,
) -> RuleResult:
    """Hold the unlearned model's share of the forgotten training images to its own share of held-out images of the same classes, which a
    retrain could tell apart only by chance: the bounds are widened by as much as two such shares differ by chance (95%)."""
    forgotten, images = (int(evaluation["held_out"].get(name) or 0) for name in ("forgotten", "images"))
    if not forgotten or not images:
        return _not_judged(rule, "and there are no held-out images of some forgotten classes")
    if min(forgotten, images) < params.min_images:
        few = f"and {forgotten:,} forgotten and {images:,} held-out images are too few to compare"
        return _not_judged(rule, f"{few} (gate.min_images = {params.min_images})")
    value, held = (_number(_marks(evaluation, "unlearned").get(name)) for name in (metric, standard))

    def reason(value: float, standard: float, holds: bool) -> str:
        said = f"{value - standard:+.1f} points to held-out images of the same classes"
        return said if holds else f"{fails if value > standard else 'OVER-FORGOTTEN: MIA'} {said}"

    chance = 0.0 if value is None or held is None else 196 * math.sqrt(_variance(value) / forgotten + _variance(held) / images)
    wider = None if below is None else below + chance
    return _held(evaluation, rule, metric, held, above=above + chance, below=wider, reason=reason)


def _variance(share: float) -> float:
    """Return the variance of whether a single image counts, for a share in percent."""
    return share / 100 * (1 - share / 100)


def _held(
    evaluation: Evaluation,
    rule: str,
    metric: str,
    standard: float | None,
    *,
    above: float | None = None,
    below: float | None = None,
    reason: Callable[[float, float, bool], str],
) -> RuleResult:
    """Hold one metric of the unlearned model to a standard; a missing one fails."""
    value = _number(_marks(evaluation, "unlearned").get(metric))
    if value is None or standard is None:
        what = f"{metric} of unlearned model" if value is None else "what it is held to"
        return RuleResult(rule=rule, holds=False, value=value, low=None, high=None, reason=f"not measured: {what}")
    return _within(rule, value, standard, above, below, reason)


def _not_judged(rule: str, why: str = "") -> RuleResult:
    said = f"{NOT_JUDGED}, {why}" if why else NOT_JUDGED
    return RuleResult(rule=rule, holds=None, value=None, low=None, high=None, reason=said)


def _says(fails: str, passes: str) -> Callable[[float, float, bool], str]:
    return lambda value, reference, holds: passes if holds else fails


def _marks(evaluation: Evaluation, model: str) -> Mapping[str, Any]:
    return (evaluation.get(model) or {}).get("metrics") or {}


def _number(value: Any) -> float | None:
    """Return a metric; None if it is missing or not a number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else None
