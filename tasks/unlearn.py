"""The unlearning itself: one of `megu.methods.METHODS` on the original."""

from __future__ import annotations

from typing import Any

from megu.methods import METHODS, Context
from megu.project import Project
from megu.stages import Device, Outcome, Result, Stage
from tasks import kept


def reoptimise(
    project: Project,
    data: Result,
    split: Result,
    original: Result,
    perturbing: Result,
    noise: Result,
    method: str,
    params: Any,
    seed: int,
    device: Device,
) -> Outcome:
    from megu.noise import NoiseBank
    from megu.perturbing import Perturbing
    from megu.weights import load_weights

    positions = kept.forget_split(project, split)
    images = kept.train_images(project, data, device)
    model = kept.model(project, original, device)
    context = Context(
        params=params,
        seed=seed,
        num_classes=len(data.values["classes"]),
        forgotten=positions.classes,
        perturbing=Perturbing(**project.store.arrays(perturbing.files["perturbing"])),  # type: ignore[arg-type]
        noise=NoiseBank.from_arrays(project.store.arrays(noise.files["noise"])),
        checkpoint=kept.checkpoint(project, "unlearn", data, split, original, perturbing, noise, method, params, seed),
    )
    forget, retain = images.subset(positions.forget), images.subset(positions.retain)
    unlearned, seconds = kept.timed(lambda: METHODS[method].run(model, forget, retain, context))
    _, info = load_weights(project.store.checked(original.files["weights"]))
    return kept.model_outcome(project, unlearned, info, seconds)


UNLEARN = Stage("unlearn", "Re-optimise: forget the forget set, keep the rest", reoptimise, kept.say_trained)
