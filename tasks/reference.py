"""The true retrain that the result is compared with: trained here, or given."""

from __future__ import annotations

from megu.core.files.store import Ref
from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.training.loop import TrainParams
from tasks.original import taken
from tasks.run import kept


def retrain(project: Project, data: Result, split: Result, params: TrainParams, seed: int, device: Device) -> Outcome:
    """The same recipe as the original's from fresh weights, without the forget set."""
    from megu.training.retrain import retrain as train_again
    from megu.training.weights import ModelInfo

    positions = kept.forget_split(project, split)
    retain = kept.train_images(project, data, device, positions.retain)
    classes = len(data.values["classes"])
    checkpoint = kept.checkpoint(project, "reference", data, split, params, seed)
    model, cost = kept.measured(lambda: train_again(retain, params, classes, seed, checkpoint=checkpoint), device)
    return kept.model_outcome(project, model, ModelInfo.of(params.arch, classes, retain.shape, params.pretrained), cost)


REFERENCE = Stage("reference", "Retrain from nothing without the forget set", retrain, kept.say_trained)


def take(project: Project, data: Result, split: Result, weights: Ref, params: TrainParams) -> Outcome:
    """A given retrain, checked as a given original is. split: whose forget set it never saw, by its giver's word; nothing here can tell."""
    return taken(project, data, weights, params, "reference")


GIVEN_REFERENCE = Stage(
    "given-reference", "Check the given retrain", take, lambda result: "given, not trained here; fits the data set"
)
