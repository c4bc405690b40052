"""A model's predictions for every image of the data set; every evaluation of a model starts from these."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from tasks.run import cached


def predict(project: Project, data: Result, model: Result, device: Device) -> Outcome:
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet
    from megu.training.loop import predict as answer

    loaded = cached.dataset(project, data)
    network = cached.model(project, model, device)
    arrays = {}
    for name, partition in (("train", loaded.train), ("test", loaded.test)):
        images = ImageSet.from_partition(partition, loaded.mean, loaded.std, resolve(device))
        predictions = answer(network, images, features=name == "train", label=f"predict {name}")
        arrays[f"{name}_logits"] = predictions.logits.numpy()
        if predictions.features is not None:
            arrays[f"{name}_features"] = predictions.features.numpy()
    accuracy = 100.0 * float((arrays["test_logits"].argmax(1) == loaded.test.labels).mean())
    return Outcome(files={"predictions": project.store.put_arrays(arrays)}, values={"test_accuracy": accuracy})


PREDICTIONS = Stage(
    "predictions",
    "Ask the model about every image",
    predict,
    lambda result: f"{result.values['test_accuracy']:.1f}% of the test images right",
)
