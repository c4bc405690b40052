"""The perturbing labels of the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.perturbing import PerturbParams
from megu.unlearning.labels.replacing import JUDGED
from tasks.run import cached

if TYPE_CHECKING:
    from numpy.typing import NDArray


def perturb(
    project: Project,
    data: Result,
    split: Result,
    predictions: Result,
    transition: Result,
    params: PerturbParams,
    calibration: CalibrationParams,
    seed: int,
    labeling_apart: Result | None = None,
    entanglement: Result | None = None,
) -> Outcome:
    """labeling_apart: the labeler's scores for the sub-classes to forget; None if there are none. entanglement: for ``matrix:
    overlap``."""
    import numpy as np

    from megu.unlearning.labels.calibration_set import of_dataset
    from megu.unlearning.labels.targets import subclass_likeness, targets

    positions = cached.forget_split(project, split)
    loaded = cached.dataset(project, data)
    answers = project.store.arrays(predictions.files["predictions"])
    likeness = {}
    if labeling_apart is not None:
        similarity = project.store.arrays(labeling_apart.files["labeling"])["S"]
        likeness = subclass_likeness(loaded, labeling_apart.values["apart"], similarity, positions.classes)
    apart = of_dataset(loaded, calibration)
    chosen = targets(
        loaded,
        positions.forget,
        answers["train_logits"],
        answers["test_logits"],
        project.store.arrays(transition.files["transition"])["T"],
        positions.classes,
        params,
        calibration,
        seed,
        likeness,
        None if entanglement is None else project.store.arrays(entanglement.files["entanglement"])["soft"],
    )
    arrays: dict[str, NDArray[Any]] = {name: getattr(chosen, name) for name in ("labels", "targets", "reasoning", "entropies")}
    wanted = chosen.entropies[np.isfinite(chosen.entropies)]
    means = chosen.targets.mean(axis=0)
    shares = {
        data.values["classes"][k]: round(float(means[k]), 4) for k in np.argsort(-means, kind="stable") if means[k] >= 0.0005
    }
    return Outcome(
        files={
            "perturbing": project.store.put_arrays(arrays),
            "calibration": project.store.put_arrays({"positions": apart}),
        },
        values={
            "label": params.label,
            "matrix": params.matrix,
            "sharpness": chosen.sharpness,
            "entropy": round(float(wanted.mean()), 4) if len(wanted) else None,
            "calibration_images": len(apart),
            "shares": shares,
            "likeness": {loaded.fine[finer]: round(share, 4) for finer, share in likeness.items()} if loaded.fine else {},
        },
    )


def say(result: Result) -> str:
    first = list(result.values["shares"].items())[:3]
    sharpness = f" (sharpness {result.values['sharpness']:.2f})" if result.values["label"] == "soft" else ""
    like = [f"{name} looks {100 * share:.0f}% like its class" for name, share in result.values.get("likeness", {}).items()]
    of = "" if (matrix := result.values["matrix"]) == JUDGED else f" by the matrix {matrix}"
    return f"{result.values['label']}{of}{sharpness}: " + ", ".join(
        [*(f"{name} {100 * share:.0f}%" for name, share in first), *like]
    )


PERTURBING = Stage("perturbing", "Choose the perturbing labels", perturb, say)
