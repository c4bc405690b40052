"""The perturbing labels of the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megu.calibration_set import CalibrationParams
from megu.perturbing import PerturbParams
from megu.project import Project
from megu.stages import Outcome, Result, Stage
from tasks import kept

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
) -> Outcome:
    import numpy as np

    from megu.calibration import Calibration
    from megu.calibration_set import of_dataset
    from megu.perturbing import perturb as choose

    positions = kept.forget_split(project, split)
    loaded = kept.dataset(project, data)
    every = loaded.train.labels
    answers = project.store.arrays(predictions.files["predictions"])
    matrix = project.store.arrays(transition.files["transition"])["T"]
    # A class that an erasure has emptied is no label to teach.
    emptied = set(range(len(data.values["classes"]))) - set(every.tolist())
    forgotten = sorted({*positions.classes, *emptied})
    apart = of_dataset(loaded, calibration)
    held_out = Calibration.of(
        answers["test_logits"][apart], loaded.test.labels[apart], answers["train_logits"], every, forgotten
    )
    logits = answers["train_logits"][positions.forget]
    chosen = choose(matrix, logits, every[positions.forget], forgotten, params, held_out, seed)
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
            "sharpness": chosen.sharpness,
            "entropy": round(float(wanted.mean()), 4) if len(wanted) else None,
            "calibration_images": len(apart),
            "shares": shares,
        },
    )


def say(result: Result) -> str:
    first = list(result.values["shares"].items())[:3]
    sharpness = f" (sharpness {result.values['sharpness']:.2f})" if result.values["label"] == "soft" else ""
    return f"{result.values['label']}{sharpness}: " + ", ".join(f"{name} {100 * share:.0f}%" for name, share in first)


PERTURBING = Stage("perturbing", "Choose the perturbing labels", perturb, say)
