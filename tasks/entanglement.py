"""How entangled the features of the forget set are with those of the other images."""

from __future__ import annotations

from megu.core.files.store import without_nan
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from tasks.run import cached


def measure(project: Project, data: Result, split: Result, predictions: Result) -> Outcome:
    import numpy as np

    from megu.unlearning.entanglement import analyse

    loaded = cached.dataset(project, data)
    positions = cached.forget_split(project, split)
    features = project.store.arrays(predictions.files["predictions"])["train_features"]
    forget = np.zeros(len(loaded.train), dtype=bool)
    forget[positions.forget] = True
    found = analyse(features, loaded.train.labels, loaded.num_classes, forget)
    asked = [int(k) for k in np.unique(loaded.train.labels[positions.forget])]
    nearest = {loaded.classes[k]: [loaded.classes[other] for other in near] for k, near in found.nearest(asked).items()}
    return Outcome(
        files={"entanglement": project.store.put_arrays(found.to_arrays())},
        values=without_nan(
            {"score": found.score, "nearest": nearest, "unique": dict(zip(loaded.classes, found.unique.tolist(), strict=True))}
        ),
    )


def say(result: Result) -> str:
    """Name the nearest classes; a random request that takes images of every class has none."""
    near = "; ".join(
        f"{name} is nearest to {', '.join(others[:2])}" for name, others in result.values["nearest"].items() if others
    )
    score = result.values["score"]
    return ", ".join(filter(None, ("" if score is None else f"score {score:.2f}", near)))


ENTANGLEMENT = Stage("entanglement", "Measure how entangled the features are", measure, say)
