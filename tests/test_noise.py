from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import images
from torch import nn

from megu.noise import NoiseParams, make_noise_bank, mixture, optimise_noise
from megu.training import TrainParams, train
from megu.weights import digest

PARAMS = NoiseParams(per_label=3, steps=60)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.set_num_threads(1)
    return train(images(320), TrainParams(epochs=8, batch_size=16), 4, seed=0)


def confidence(model: nn.Module, noise: np.ndarray, label: int) -> float:
    with torch.inference_mode():
        return float(torch.softmax(model(torch.from_numpy(noise)), dim=1)[:, label].mean())


def test_one_step_by_hand() -> None:
    """A linear model f(N) = (n, -n) of one pixel n = .5, label 0, lam 0: dCE/dn = -2 (1 - p), so Adam's first step is +lr; for the
    negative noise it is -lr."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * self.weight

    start = torch.full((2, 1, 1, 1), 0.5)
    found = optimise_noise(
        Linear(), start, torch.tensor([0, 0]), torch.tensor([1.0, -1.0]), NoiseParams(steps=1, lr=0.1, lam=0)
    )
    torch.testing.assert_close(found.flatten(), torch.tensor([0.6, 0.4]))


def test_the_positive_noise_is_taken_for_its_label_and_the_negative_for_anything_else(model: nn.Module) -> None:
    bank = make_noise_bank(model, 4, (1, 8, 8), [2], PARAMS, seed=0)
    assert bank.positive.shape == (4, 3, 1, 8, 8)
    assert bank.negative.shape == (1, 3, 1, 8, 8)
    assert bank.negative_classes.tolist() == [2]
    for label in range(4):
        assert confidence(model, bank.positive[label], label) > 0.6
    assert confidence(model, bank.negative[0], 2) < 0.01


def test_the_norm_is_held_down_by_lam(model: nn.Module) -> None:
    sizes = [
        np.linalg.norm(make_noise_bank(model, 4, (1, 8, 8), [0], NoiseParams(per_label=2, steps=40, lam=lam), seed=0).positive)
        for lam in (0.0, 0.1, 10.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_frozen_model_stays_as_it_is(model: nn.Module) -> None:
    before, mode = digest(model), model.training
    model.zero_grad(set_to_none=True)
    make_noise_bank(model, 4, (1, 8, 8), [0], PARAMS, seed=0)
    assert digest(model) == before
    assert model.training == mode
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_image_goes_its_own_way(model: nn.Module) -> None:
    """What a noise image becomes does not depend on which others are optimised beside it."""
    start = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, sign, untouched = torch.tensor([0, 1, 2, 3]), torch.ones(4), start.clone()
    together = optimise_noise(model, start, labels, sign, PARAMS)
    alone = optimise_noise(model, start[2:3], labels[2:3], sign[2:3], PARAMS)
    torch.testing.assert_close(together[2:3], alone, atol=2e-3, rtol=0)
    assert torch.equal(start, untouched), "what was given is not changed"


def test_how_many_go_together_changes_nothing(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    few = NoiseParams(per_label=3, steps=5)
    whole = make_noise_bank(model, 4, (1, 8, 8), [1], few, seed=0)
    monkeypatch.setattr("megu.noise.AT_ONCE", 4)
    parts = make_noise_bank(model, 4, (1, 8, 8), [1], few, seed=0)
    np.testing.assert_allclose(parts.positive, whole.positive, atol=1e-4)
    np.testing.assert_allclose(parts.negative, whole.negative, atol=1e-4)


def test_the_same_seed_gives_the_same_bank(model: nn.Module) -> None:
    first, second, other = (make_noise_bank(model, 4, (1, 8, 8), [0], PARAMS, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.positive, second.positive)
    assert not np.array_equal(first.positive, other.positive)


def test_on_a_cpu_it_is_made_in_float32_whatever_training_multiplies_in(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, banks = NoiseParams(per_label=2, steps=5), []
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr("megu.device.fast_dtype", lambda device, dtype=dtype: dtype)
        banks.append(make_noise_bank(model, 4, (1, 8, 8), [0], few, seed=0))
    np.testing.assert_array_equal(banks[0].positive, banks[1].positive)


def test_the_mixture_by_hand() -> None:
    """.7 * 10 + .3 * (-5) = 5.5"""
    assert mixture(torch.tensor(10.0), torch.tensor(-5.0), 0.7).item() == pytest.approx(5.5)
