"""Relearn time: how many steps of fine-tuning on the forget set bring the original's accuracy on it back.

A model that only hides what it knows has it back at once (Golatkar et al., CVPR 2020; Tarun et al., "Fast yet effective machine
unlearning", 2023; Chundawat et al., "Zero-shot machine unlearning", 2023, whose anamnesis index is a ratio of such times). The right
number is the retrain's, not the largest: a network that learned the rest of the data learns a new class or sample in so many steps.

The recipe: Adam at a constant rate on cross-entropy over shuffled batches of the forget set alone, in evaluation mode throughout, so that
batch statistics of the forget set neither help nor hinder; the same batches for every model. Before each step the accuracy is
measured on at most `ASKED` of the forgotten images, drawn by the seed; the count stops at the original's accuracy on these less the
tolerance.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from megu.data.tensors import ImageSet
from megu.device import fused
from megu.evaluation.params import RelearnParams
from megu.progress import track
from megu.seeds import derive, generator
from megu.training import Batches

#: The forgotten images that the accuracy is measured on: enough for a point or two, few enough to look at before every step.
ASKED = 1000
#: How many of them at once.
LOOKED_AT = 500


def relearn(model: nn.Module, forget: ImageSet, target: float, params: RelearnParams, seed: int) -> int | None:
    """Steps until the accuracy on `asked` reaches ``target`` percent: 0 where it is there already, None where ``params.steps`` do not do.

    The given model stays as it is.
    """
    learner = copy.deepcopy(model).eval()
    batches = Batches(len(forget), params.batch_size, derive(seed, "relearn"))
    optimiser = torch.optim.Adam(learner.parameters(), lr=params.lr, fused=fused(learner))
    shown = asked(forget, seed)
    with track("relearn", params.steps, "steps") as advance:
        for step in range(params.steps + 1):
            if accuracy(learner, shown) >= target:
                return step
            if step < params.steps:
                inputs, labels = forget.batch(batches.at(step, forget.home)), forget.labels[batches.at(step, forget.device)]
                optimiser.zero_grad(set_to_none=True)
                F.cross_entropy(learner(inputs), labels).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                advance(1)
    return None


def asked(forget: ImageSet, seed: int) -> ImageSet:
    """The forgotten images that the accuracy is measured on."""
    return forget.subset(torch.randperm(len(forget), generator=generator(seed, "relearn asked"))[:ASKED])


@torch.no_grad()
def accuracy(model: nn.Module, images: ImageSet) -> float:
    """In percent, of a model in evaluation mode."""
    parts = [slice(start, start + LOOKED_AT) for start in range(0, len(images), LOOKED_AT)]
    right = torch.cat([model(images.batch(part)).argmax(1) == images.labels[part] for part in parts])
    return 100.0 * float(right.double().mean())
