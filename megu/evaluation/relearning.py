"""Relearn time: how many steps of fine-tuning on the forget set bring the original's accuracy on it back.

A model that only hides what it knows regains it at once (Golatkar et al., CVPR 2020; Tarun et al., "Fast yet effective machine unlearning",
2023; Chundawat et al., "Zero-shot machine unlearning", 2023, whose anamnesis index is a ratio of such times). The right number is the
retrain's, not the largest: a network that learned the rest of the data needs that many steps to learn a new class or sample.

The recipe: Adam at a constant rate on cross-entropy over shuffled batches of the forget set alone, in evaluation mode throughout, so that
batch statistics of the forget set neither help nor hinder; the same batches for every model. Before each step the accuracy is measured on
at most `ASKED` of the forgotten images, drawn by the seed; the count stops at the original's accuracy on these less the tolerance.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.device import fused
from megu.core.progress import track
from megu.core.seeds import derive, generator
from megu.data.tensors import ImageSet
from megu.evaluation.params import RelearnParams
from megu.training.capture import Captured, Work
from megu.training.loop import Batches, rate_setter, step_of

#: The forgotten images that the accuracy is measured on: enough for a point or two, few enough to evaluate before every step.
ASKED = 1000
#: How many of them are evaluated at once.
LOOKED_AT = 500


def relearn(model: nn.Module, forget: ImageSet, target: float, params: RelearnParams, seed: int) -> int | None:
    """Return the steps until the accuracy on `sample_queries` reaches ``target`` percent: 0 if it is there already, None if
    ``params.steps`` are not enough.

    The model itself does not change.
    """
    learner = copy.deepcopy(model).eval()
    batches = Batches(len(forget), params.batch_size, derive(seed, "relearn"))
    optimiser = torch.optim.Adam(learner.parameters(), lr=params.lr, fused=fused(learner))
    rate_setter(optimiser, forget.device)(params.lr)
    shown = sample_queries(forget, seed)

    def loss_of(inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(learner(inputs), labels)

    take = Captured(step_of(optimiser, loss_of), learner, forget.device, params.steps, "relearn")
    look = Captured(
        right_of(learner), learner, forget.device, (params.steps + 1) * math.ceil(len(shown) / LOOKED_AT), "relearn"
    )
    with track("relearn", params.steps, "steps") as advance:
        for step in range(params.steps + 1):
            if accuracy(learner, shown, look) >= target:
                return step
            if step < params.steps:
                take(forget.batch(batches.at(step, forget.home)), forget.labels[batches.at(step, forget.device)])
                advance(1)
    return None


def sample_queries(forget: ImageSet, seed: int) -> ImageSet:
    """Return the forgotten images on which the accuracy is measured."""
    return forget.subset(torch.randperm(len(forget), generator=generator(seed, "relearn asked"))[:ASKED])


@torch.no_grad()
def accuracy(model: nn.Module, images: ImageSet, look: Work | None = None) -> float:
    """Return the accuracy in percent of a model in evaluation mode. look: its `right_of`, if that is recorded."""
    look = look or right_of(model)
    parts = [slice(start, start + LOOKED_AT) for start in range(0, len(images), LOOKED_AT)]
    right = torch.cat([look(images.batch(part), images.labels[part]) for part in parts])
    return 100.0 * float(right.double().mean())


def right_of(model: nn.Module) -> Work:
    """Return a function from a batch's inputs and labels to which of them ``model`` gets right: bool (B,)."""
    return lambda inputs, labels: model(inputs).argmax(1) == labels
