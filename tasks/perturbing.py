"""The perturbing labels of the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.perturbing import PerturbParams
from megu.unlearning.labels.replacing import JUDGED
from tasks.run import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from megu.data.arrays import Dataset


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
    """labeling_apart: the labeler's judgement of the sub-classes that leave; None where none does. entanglement: for ``matrix: overlap``."""
    import numpy as np

    from megu.unlearning.labels.calibration import Calibration
    from megu.unlearning.labels.calibration_set import of_dataset
    from megu.unlearning.labels.perturbing import perturb as choose

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
    likeness = {} if labeling_apart is None else _likeness(project, loaded, labeling_apart, forgotten)
    like = np.full(len(logits), np.nan)
    for finer, share in likeness.items():
        like[np.asarray(loaded.train.fine)[positions.forget] == finer] = share
    overlap = None if entanglement is None else project.store.arrays(entanglement.files["entanglement"])["soft"]
    chosen = choose(matrix, logits, every[positions.forget], forgotten, params, held_out, seed, like, overlap)
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


def _likeness(project: Project, loaded: Dataset, judged: Result, forgotten: Sequence[int]) -> dict[int, float]:
    """Of each sub-class that was judged apart, by its number: how much of what it looks like is the rest of its own class, in [0, 1]."""
    import numpy as np

    from megu.unlearning.labels.calibration import share_of_own

    names = judged.values["apart"]
    similarity = project.store.arrays(judged.files["labeling"])["S"]
    assert loaded.fine is not None
    assert loaded.train.fine is not None
    found = {}
    for row, name in enumerate(names, start=loaded.num_classes):
        finer = loaded.fine.index(name)
        own = int(np.asarray(loaded.train.labels)[np.asarray(loaded.train.fine) == finer][0])
        found[finer] = share_of_own(similarity[row, : loaded.num_classes], own, forgotten)
    return found


def say(result: Result) -> str:
    first = list(result.values["shares"].items())[:3]
    sharpness = f" (sharpness {result.values['sharpness']:.2f})" if result.values["label"] == "soft" else ""
    like = [f"{name} looks {100 * share:.0f}% like its class" for name, share in result.values.get("likeness", {}).items()]
    of = "" if (matrix := result.values["matrix"]) == JUDGED else f" by the matrix {matrix}"
    return f"{result.values['label']}{of}{sharpness}: " + ", ".join(
        [*(f"{name} {100 * share:.0f}%" for name, share in first), *like]
    )


PERTURBING = Stage("perturbing", "Choose the perturbing labels", perturb, say)
