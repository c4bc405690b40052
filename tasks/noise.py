"""The pair of feature noises, from the frozen original."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.unlearning.noise import NoiseParams
from tasks.run import cached


def make_noise(
    project: Project,
    data: Result,
    split: Result,
    original: Result,
    perturbing: Result,
    params: NoiseParams,
    seed: int,
    device: Device,
) -> Outcome:
    import numpy as np

    from megu.unlearning.noise import make_noise_bank, taught

    images = cached.dataset(project, data)
    positions = cached.forget_split(project, split)
    forgotten = sorted({int(label) for label in images.train.labels[positions.forget]})
    height, width = images.image_size
    shape = (images.channels, height, width)
    model = cached.model(project, original, device)
    labels = taught(cached.perturbing(project, perturbing).targets, params.coverage)
    bank, cost = cached.measured(lambda: make_noise_bank(model, labels, shape, forgotten, params, seed), device)
    counts = {name: int(np.prod(getattr(bank, name).shape[:2])) for name in ("positive", "negative")}
    return Outcome(files={"noise": project.store.put_arrays(bank.to_arrays())}, values=counts, notes=cost)


def say_noise(result: Result) -> str:
    return f"{result.values['positive']} positive and {result.values['negative']} negative noise images"


NOISE = Stage("noise", "Make the feature-noise pair from the frozen model", make_noise, say_noise)
