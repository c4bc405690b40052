"""Networks and images small enough that a method's answer can be worked out on paper, and a trained tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny import images
from torch import Tensor, nn

import megu.core.device
from megu import models
from megu.data.tensors import ImageSet
from megu.training.loop import TrainParams, predict, train
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.methods import METHODS, Context
from megu.unlearning.noise import NoiseParams, make_noise_bank

#: Images, a quarter of each class.
COUNT = 200
RECIPE = TrainParams(epochs=8, batch_size=16, augment="none")


class Linear(nn.Module):
    """logits = W x, x the pixels in [0, 1]."""

    def __init__(self, weight: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def points(pixels: Sequence[Sequence[int]], labels: Sequence[int]) -> ImageSet:
    """One-row grey images of these pixels (0 to 255), not normalised: 255 is the input 1.0."""
    values = torch.tensor(pixels, dtype=torch.uint8)[:, None, None, :]
    return ImageSet(values, torch.tensor(labels), torch.zeros(1), torch.ones(1))


def context(params: Any, num_classes: int, forgotten: Sequence[int] = (), seed: int = 0, **more: Any) -> Context:
    return Context(params=params, seed=seed, num_classes=num_classes, forgotten=tuple(forgotten), **more)


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16, whatever the CPU has: for comparison with formulas."""
    monkeypatch.setattr(megu.core.device, "fast_dtype", lambda device: torch.float32)


@pytest.fixture(scope="session")
def original() -> nn.Module:
    """Knows the four classes of `tiny.images`."""
    torch.set_num_threads(1)
    return train(images(COUNT), RECIPE, 4, seed=0)


#: Settings that suit so few and tiny images; the defaults are for real ones.
TINY: dict[str, dict[str, Any]] = {
    "megu": {"steps": 40, "batch_size": 16, "lr": 0.03},
    "megu_published": {"epochs": 6, "batch_size": 16, "lr": 0.005},
    "retrain": {},
    "finetune": {"epochs": 2, "batch_size": 16},
    "neggrad_plus": {"epochs": 3, "batch_size": 16, "alpha": 0.75},
    "random_labels": {"epochs": 4, "batch_size": 16, "lr": 0.003},
    "unsir": {"noises": 8, "copies": 10, "per_class": 45, "batch_size": 16},
    "bad_teacher": {"epochs": 10, "batch_size": 16, "lr": 0.001},
    # With three epochs the last class comes back on some processors only.
    "scrub": {"batch_size": 16, "forget_batch_size": 16, "lr": 0.005, "epochs": 5},
    "ssd": {"batch_size": 16, "alpha": 3.0, "lam": 0.3},
    "salun": {"epochs": 4, "batch_size": 16},
    "boundary_shrink": {"batch_size": 16, "lr": 1e-3},
    "delete": {"batch_size": 16, "lr": 1e-3, "epochs": 10},
}


def request(original: nn.Module, name: str, scenario: str = "class", **more: Any) -> tuple[ImageSet, ImageSet, Context]:
    """What a method is given to forget class 2, classes 1 and 2, or a tenth of the images of all classes ("random")."""
    data = images(COUNT)
    forgotten = {"class": (2,), "classes": (1, 2), "random": ()}[scenario]
    chosen = np.arange(COUNT) % 10 == 3 if scenario == "random" else np.isin(data.labels.numpy(), forgotten)
    forget, retain = data.subset(np.flatnonzero(chosen)), data.subset(np.flatnonzero(~chosen))
    answers = predict(original, forget).logits.numpy()
    labels = forget.labels.numpy()
    made = perturb(np.full((4, 4), 0.25), answers, labels, forgotten, PerturbParams(sharpness=1.0))
    given: dict[str, Any] = {
        "perturbing": made,
        "noise": make_noise_bank(
            original, range(4), (1, 8, 8), sorted(set(labels.tolist())), NoiseParams(per_label=2, steps=5), seed=0
        ),
        "fresh": lambda: models.fresh("resnet-compact", 4, 1),
        "recipe": RECIPE,
    }
    return forget, retain, context(METHODS[name].params(**TINY[name]), 4, forgotten, **{**given, **more})


def accuracy(model: nn.Module, data: ImageSet) -> float:
    return float((predict(model, data).logits.argmax(1) == data.labels).float().mean())
