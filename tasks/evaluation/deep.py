"""What a model still knows about the forget set below its last layer."""

from __future__ import annotations

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.evaluation.params import DeepParams
from megu.unlearning.labels.calibration_set import CalibrationParams, left_to_measure
from tasks.run import cached


def measure(
    project: Project,
    data: Result,
    split: Result,
    model: Result,
    params: DeepParams,
    calibration: CalibrationParams,
    seed: int,
    device: Device,
) -> Outcome:
    """metrics: by name, in percent. asked: the forgotten images that they are measured on. calibration: which test images are left out.

    Raises `MeguError` if there are no retained images to compare with.
    """
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet
    from megu.evaluation.deep import check, draw

    loaded = cached.dataset(project, data)
    measured, _, positions = left_to_measure(loaded, cached.forget_split(project, split), calibration)
    if not len(positions.retain) or not len(positions.test_retain):
        raise MeguError("the deep checks need retained training and test images", "set evaluation.deep to false")
    train, test = (
        ImageSet.from_partition(part, loaded.mean, loaded.std, resolve(device)) for part in (loaded.train, loaded.test)
    )
    drawn = draw(train, test, positions.forget, positions.retain, measured[positions.test_retain], seed)
    network = cached.model(project, model, device)
    found, cost = cached.measured(lambda: check(network, drawn, loaded.num_classes, params, seed), device)
    return Outcome(values={"metrics": found, "asked": len(drawn.asked)}, notes=cost)


def say(result: Result) -> str:
    found = result.values["metrics"]
    return f"probe {found['probe']:.1f}%, back from the rest alone {found['relearn_retain']:.1f}%, from a few {found['relearn_few']:.1f}%"


DEEP = Stage("deep", "Look for the forget set under the last layer", measure, say)
