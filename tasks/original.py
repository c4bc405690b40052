"""The model that is to forget: trained here, or provided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.core.files.store import Ref
from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.training.loop import TrainParams
from tasks.run import cached

if TYPE_CHECKING:
    from torch import nn

    from megu.data.arrays import Dataset
    from megu.training.weights import ModelInfo


def train(project: Project, data: Result, params: TrainParams, seed: int, device: Device) -> Outcome:
    from megu.training.loop import train as train_model
    from megu.training.weights import ModelInfo

    images = cached.train_images(project, data, device)
    classes = len(data.values["classes"])
    checkpoint = cached.checkpoint(project, "original", data, params, seed)
    model, cost = cached.measured(
        lambda: train_model(images, params, classes, seed, checkpoint=checkpoint, label="train the original"), device
    )
    return cached.model_outcome(project, model, ModelInfo.of(params.arch, classes, images.shape, params.pretrained), cost)


TRAINED = Stage("original", "Train the original model on all of the data", train, cached.say_trained)


def take(project: Project, data: Result, weights: Ref, params: TrainParams) -> Outcome:
    """Take a provided original, after checking that it fits this data set and has the architecture that is retrained."""
    return taken(project, data, weights, params, "original")


def taken(project: Project, data: Result, weights: Ref, params: TrainParams, name: str) -> Outcome:
    """Take a provided model, checked (see `checked`). name: what it is, for an error.

    If a file does not describe itself, ``params.arch`` is assumed. If it is not stored in the form in which it is used (another
    description, another floating-point type), it is stored again.
    """
    from megu.training.weights import digest, read_state, to_bytes

    path = project.store.checked(weights)
    network, info = checked(path, name, cached.dataset(project, data), params)
    state, described = read_state(path)
    used = described == info and all(tensor.dtype == network.state_dict()[name].dtype for name, tensor in state.items())
    file = weights if used else project.store.put_bytes("safetensors", to_bytes(network, info))
    return Outcome(files={"weights": file}, values={"weights_digest": digest(network)})


def checked(path: Path, name: str, data: Dataset, params: TrainParams) -> tuple[nn.Module, ModelInfo]:
    """Return a provided model and its description. name: of the file or model, as the user knows it.

    Raises `MeguError` when it does not fit the data set or ``params.arch``, or has weights that a retrain would start from.
    """
    from megu import models
    from megu.models.anew import refuse_provided
    from megu.models.foreign import check_output
    from megu.training.weights import ModelInfo, load_model, read_state

    shape = (data.channels, *data.image_size)
    wanted = ModelInfo.of(params.arch, data.num_classes, shape, params.pretrained)
    described = read_state(path, name)[1]
    if described is not None and replace(described, pretrained=wanted.pretrained) != wanted:
        raise MeguError(f"{name}: the given model is {describe(described)}, not {describe(wanted)}", _fix(described, wanted))
    network, _ = load_model(path, wanted, name)
    check_output(network, params.arch, data.num_classes, shape)
    if params.arch not in models.MODELS:
        refuse_provided(models.seeded(wanted.fresh, 0), network.state_dict(), params.arch, params.pretrained)
    return network, wanted


def describe(info: ModelInfo) -> str:
    size = f", {info.image_size[0]} x {info.image_size[1]} pixels" if info.image_size else ""
    return f"a {info.arch} for {info.channels} channels and {info.num_classes} classes{size}"


def _fix(described: ModelInfo, wanted: ModelInfo) -> str:
    if described.arch != wanted.arch:
        return f"set train.arch={described.arch}: original and retrain must be of the same architecture"
    return "give a model of this data set, or change data.name"


GIVEN = Stage("given", "Check the given original model", take, lambda result: "fits the data set")
