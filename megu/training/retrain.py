"""The true retrain: every weight fresh, the original's recipe, only the retain set. It is the reference, and the method to beat in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from megu import models
from megu.data.tensors import ImageSet
from megu.training.loop import TrainParams, fit


def retrain(
    retain: ImageSet,
    params: TrainParams,
    num_classes: int,
    seed: int,
    *,
    fresh: Callable[[], nn.Module] | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train and return a model that never saw the forget set.

    It is newly initialised and receives nothing from the original: no parameter, no buffer, no batch-norm statistic.
    fresh: makes a newly initialised network; without it, the recipe's architecture is used.
    """
    channels, height, width = retain.shape
    make = fresh or (lambda: models.fresh(params.arch, num_classes, channels, (height, width), pretrained=params.pretrained))
    model = models.seeded(make, seed).to(retain.device)
    fit(model, retain, params, seed, checkpoint=checkpoint, label="retrain")
    return model
