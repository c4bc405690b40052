"""The predictions of an unlearned model, or a retrain, for every image of the data set, as far as the evaluation needs them.

For the original everything is stored (`tasks.evaluation.predictions`): every request reads its features and its logits.
"""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from tasks.run import cached


def predict(project: Project, data: Result, split: Result, model: Result, device: Device) -> Outcome:
    """split: the request whose forget set is evaluated; the logits of its images are stored."""
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet
    from megu.evaluation.condensed import condense
    from megu.training.loop import predict as answer

    loaded = cached.dataset(project, data)
    network = cached.model(project, model, device)
    train, test = (
        answer(
            network, ImageSet.from_partition(part, loaded.mean, loaded.std, resolve(device)), label=f"predict {name}"
        ).logits.numpy()
        for name, part in (("train", loaded.train), ("test", loaded.test))
    )
    found = condense(train, test, cached.forget_split(project, split).forget)
    accuracy = 100.0 * float((test.argmax(1) == loaded.test.labels).mean())
    return Outcome(files={"condensed": project.store.put_arrays(vars(found))}, values={"test_accuracy": accuracy})


CONDENSED = Stage(
    "condensed",
    "Ask the model about every image",
    predict,
    lambda result: f"{result.values['test_accuracy']:.1f}% of the test images right",
)
