"""The model that is to forget: trained here, or given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megu.errors import MeguError
from megu.project import Project
from megu.stages import Device, Outcome, Result, Stage
from megu.store import Ref
from megu.training import TrainParams
from tasks import kept

if TYPE_CHECKING:
    from megu.weights import ModelInfo


def train(project: Project, data: Result, params: TrainParams, seed: int, device: Device) -> Outcome:
    from megu.training import train as train_model
    from megu.weights import ModelInfo

    images = kept.train_images(project, data, device)
    classes = len(data.values["classes"])
    checkpoint = kept.checkpoint(project, "original", data, params, seed)
    model, seconds = kept.timed(
        lambda: train_model(images, params, classes, seed, checkpoint=checkpoint, label="train the original")
    )
    return kept.model_outcome(project, model, ModelInfo.of(params.arch, classes, images.shape), seconds)


TRAINED = Stage("original", "Train the original model on all of the data", train, kept.say_trained)


def take(project: Project, data: Result, weights: Ref, params: TrainParams) -> Outcome:
    """A given weights file, after checking that it is a model for this data set and of the architecture that is retrained.

    A file that does not describe itself is taken for ``params.arch``, and stored again with its description.
    """
    from megu.models.foreign import check_output
    from megu.weights import ModelInfo, digest, load_model, read_state, to_bytes

    loaded = kept.dataset(project, data)
    shape = (loaded.channels, *loaded.image_size)
    path = project.store.checked(weights)
    wanted = ModelInfo.of(params.arch, loaded.num_classes, shape)
    described = read_state(path)[1]
    if described is not None and described != wanted:
        raise MeguError(f"original: the given model is {in_words(described)}, not {in_words(wanted)}", _fix(described, wanted))
    network, info = load_model(path, wanted)
    check_output(network, params.arch, loaded.num_classes, shape)
    file = weights if described else project.store.put_bytes("safetensors", to_bytes(network, info))
    return Outcome(files={"weights": file}, values={"weights_digest": digest(network)})


def in_words(info: ModelInfo) -> str:
    size = f", {info.image_size[0]} x {info.image_size[1]} pixels" if info.image_size else ""
    return f"a {info.arch} for {info.channels} channels and {info.num_classes} classes{size}"


def _fix(described: ModelInfo, wanted: ModelInfo) -> str:
    if described.arch != wanted.arch:
        return f"set train.arch={described.arch}: the retrain must be of the same architecture"
    return "give a model of this data set, or change data.name"


GIVEN = Stage("given", "Check the given original model", take, lambda result: "fits the data set")
