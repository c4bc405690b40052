"""The true retrain that the result is compared with: trained here, or provided."""

from __future__ import annotations

from megu.core.errors import MeguError
from megu.core.files.store import Ref
from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.training.loop import TrainParams
from tasks.original import taken
from tasks.run import cached


def retrain(project: Project, data: Result, split: Result, params: TrainParams, seed: int, device: Device) -> Outcome:
    """Train the original's recipe from fresh weights, without the forget set."""
    from megu.training.retrain import retrain as train_again
    from megu.training.weights import ModelInfo

    positions = cached.forget_split(project, split)
    retain = cached.train_images(project, data, device, positions.retain)
    classes = len(data.values["classes"])
    checkpoint = cached.checkpoint(project, "reference", data, split, params, seed)
    model, cost = cached.measured(lambda: train_again(retain, params, classes, seed, checkpoint=checkpoint), device)
    return cached.model_outcome(project, model, ModelInfo.of(params.arch, classes, retain.shape, params.pretrained), cost)


REFERENCE = Stage("reference", "Retrain from nothing without the forget set", retrain, cached.say_trained)


def take(project: Project, data: Result, split: Result, original: Result, weights: Ref, params: TrainParams) -> Outcome:
    """Take a provided retrain, checked like a provided original. split: the request whose forget set it never saw, according to its
    provider; nothing here can tell.

    Raises `MeguError` if it is the original.
    """
    found = taken(project, data, weights, params, "reference")
    refuse_original(original.values["weights_digest"], found.values["weights_digest"], "the given retrain")
    return found


def refuse_original(original: str | None, reference: str | None, said: str) -> None:
    """Raise `MeguError` for a provided retrain that is the original. original, reference: digests of their weights; None: not known
    yet."""
    if original and original == reference:
        raise MeguError(
            f"{said} is the original itself: it has the same weights, so every gap to it would be 0",
            "give a model that was trained without the forget set, or leave it out to have one trained here",
        )


GIVEN_REFERENCE = Stage(
    "given-reference", "Check the given retrain", take, lambda result: "given, not trained here; fits the data set"
)
