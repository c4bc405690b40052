"""The true retrain: every weight fresh, the original's recipe, the retain set only. The reference, and the method to beat in time."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from megu.data.tensors import ImageSet
from megu.training import TrainParams, train


def retrain(retain: ImageSet, params: TrainParams, num_classes: int, seed: int, *, checkpoint: Path | None = None) -> nn.Module:
    """A model that never saw the forget set. It starts from other weights than the original of the same seed would keep: none are kept."""
    return train(retain, params, num_classes, seed, checkpoint=checkpoint, label="retrain")
