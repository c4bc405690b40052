"""Shadow models for the per-sample attack: they do not depend on a request, so every method and every request shares them."""

from __future__ import annotations

from typing import Any

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.training.loop import TrainParams
from tasks.run import cached


def train(project: Project, data: Result, params: TrainParams, seed: int, number: int, device: Device) -> Outcome:
    """Train the original's recipe from fresh weights on half of the training set; store its output for each true label, not the
    network."""
    import numpy as np

    from megu.core.device import resolve
    from megu.core.seeds import derive
    from megu.data.tensors import ImageSet
    from megu.evaluation.attacks.shadows import half, true_log_probabilities
    from megu.training.loop import predict
    from megu.training.loop import train as train_model

    loaded = cached.dataset(project, data)
    seen = half(len(loaded.train), number, seed)
    images = cached.train_images(project, data, device, np.flatnonzero(seen))
    checkpoint = cached.checkpoint(project, "shadow", data, params, seed, number)
    model, cost = cached.measured(
        lambda: train_model(
            images, params, loaded.num_classes, derive(seed, "shadow", number), checkpoint=checkpoint, label="train the shadow"
        ),
        device,
    )
    arrays: dict[str, Any] = {"seen_train": seen, "seen_test": half(len(loaded.test), number, seed, "test")}
    for name, partition in (("train", loaded.train), ("test", loaded.test)):
        asked = ImageSet.from_partition(partition, loaded.mean, loaded.std, resolve(device))
        logits = predict(model, asked, label=f"predict {name}").logits.numpy()
        arrays[name] = true_log_probabilities(logits, partition.labels)
    accuracy = 100.0 * float((logits.argmax(1) == loaded.test.labels).mean())
    return Outcome(
        files={"shadow": project.store.put_arrays(arrays)},
        values={"test_accuracy": accuracy},
        notes=cost,
    )


SHADOW = Stage(
    "shadow",
    "Train a shadow model on half of the training set",
    train,
    lambda result: f"{cached.say_trained(result)}, {result.values['test_accuracy']:.1f}% of the test images right",
)
