"""The model that is to forget: trained here, or given."""

from __future__ import annotations

from megu.errors import MeguError
from megu.project import Project
from megu.stages import Device, Outcome, Result, Stage
from megu.store import Ref
from megu.training import TrainParams
from tasks import kept


def train(project: Project, data: Result, params: TrainParams, seed: int, device: Device) -> Outcome:
    from megu.training import train as train_model
    from megu.weights import ModelInfo

    images = kept.train_images(project, data, device)
    classes = len(data.values["classes"])
    checkpoint = kept.checkpoint(project, "original", data, params, seed)
    model, seconds = kept.timed(
        lambda: train_model(images, params, classes, seed, checkpoint=checkpoint, label="train the original")
    )
    return kept.model_outcome(project, model, ModelInfo(params.arch, classes, images.shape[0]), seconds)


TRAINED = Stage("original", "Train the original model on all of the data", train, kept.say_trained)


def take(project: Project, data: Result, weights: Ref) -> Outcome:
    """A given weights file, after checking that it is a model for this data set."""
    from megu.weights import digest, load_model

    network, info = load_model(project.store.checked(weights))
    loaded = kept.dataset(project, data)
    if (info.num_classes, info.channels) != (loaded.num_classes, loaded.channels):
        raise MeguError(
            f"the given model takes {info.channels} channels and answers {info.num_classes} classes, the data set "
            f"{loaded.name} has {loaded.channels} and {loaded.num_classes}",
            "give a model of this data set, or change data.name",
        )
    return Outcome(files={"weights": weights}, values={"weights_digest": digest(network)})


GIVEN = Stage("given", "Check the given original model", take, lambda result: "fits the data set")
