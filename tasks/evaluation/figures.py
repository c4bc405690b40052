"""The figures of the report, drawn once for the same numbers."""

from __future__ import annotations

from typing import Any

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.evaluation.gate import provided_retrain
from tasks.run import cached

#: The number of forget samples shown, and the number of labels whose noise is shown.
SHOWN, LABELS = 12, 8


def draw(
    project: Project,
    data: Result,
    split: Result,
    before: Result,
    entanglement: Result,
    transition: Result | None,
    perturbing: Result | None,
    noise: Result | None,
    evaluation: Result,
    duplicates: Result,
    method: str,
    params: Any,
) -> Outcome:
    """transition, perturbing, noise: None if the method does not need them; their figures are then left out."""
    import numpy as np

    from megu.evaluation import softmax
    from megu.evaluation.text import retrain_title
    from megu.report import copies, figures

    store = project.store
    loaded = cached.dataset(project, data)
    positions = cached.forget_split(project, split)
    guided, bank = cached.arrays_of(project, perturbing, "perturbing"), cached.arrays_of(project, noise, "noise")
    matrix = cached.arrays_of(project, transition, "transition")
    distributions = store.arrays(evaluation.files["distributions"])
    models = [name for name in ("original", "unlearned", "reference") if name in evaluation.values]
    forgotten = tuple(int(k) for k in np.unique(loaded.train.labels[positions.forget]))

    def samples(targets: Any) -> figures.Samples:
        # Evenly spaced in the forget set: its first few may be alike.
        chosen = np.linspace(0, len(positions.forget) - 1, min(SHOWN, len(positions.forget))).astype(int)
        at = positions.forget[chosen]
        answers = softmax(store.arrays(before.files["predictions"])["train_logits"][at])
        return figures.Samples(
            images=np.asarray(loaded.train.images[at]),
            true=tuple(loaded.classes[k] for k in loaded.train.labels[at]),
            predicted=answers.argmax(axis=1),
            confidence=answers.max(axis=1),
            targets=targets[chosen],
        )

    def noises(made: dict[str, Any]) -> figures.NoisePictures:
        labels, negative = made["positive_classes"], made["negative"]
        likely = np.argsort(-guided["targets"].mean(axis=0)[labels], kind="stable") if guided else range(len(labels))
        shown = [int(row) for row in likely][:LABELS]
        positive, share = made["positive"][shown, 0], getattr(params, "positive_share", 0.5)
        return figures.NoisePictures(
            labels=tuple(loaded.classes[labels[row]] for row in shown),
            positive=positive,
            negative=np.repeat(negative[:1, 0], len(shown), axis=0),
            mixed=share * positive + (1 - share) * negative[:1, 0],
        )

    def groups(kind: str) -> dict[str, dict[str, Any]]:
        return {
            model: {group: distributions[f"{model}/{kind}/{group}"] for group in ("forget", "retain", "test")}
            for model in models
        }

    drawn = figures.draw(
        figures.FigureData(
            classes=loaded.classes,
            forgotten=forgotten,
            per_class={name: np.array(evaluation.values[name]["per_class"], dtype=float) for name in models},
            **{name: store.arrays(entanglement.files["entanglement"])[name] for name in ("soft", "hard", "unique")},
            transition=matrix["T"] if matrix else None,
            samples=samples(guided["targets"]) if guided else None,
            noise=noises(bank) if bank else None,
            confidence=groups("confidence"),
            entropy=groups("entropy"),
            mia={name: evaluation.values[name]["metrics"]["MIA"] for name in models},
            retrain=retrain_title(provided_retrain(evaluation.values)),
        )
    )
    alike, counts = copies.found(loaded, store.arrays(duplicates.files["groups"])["groups"], positions)
    if alike:
        drawn["near-duplicates"] = copies.draw(alike)
    return Outcome(
        files={name: store.put_bytes("png", content) for name, content in drawn.items()},
        values={"retained copies": counts[copies.RETAINED]},
    )


FIGURES = Stage("figures", "Draw the figures", draw, lambda result: f"{len(result.files)} figures")
