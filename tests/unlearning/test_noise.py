from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import images
from torch import nn

from megu.training.loop import TrainParams, counting, train
from megu.training.weights import digest
from megu.unlearning.noise import NoiseBank, NoiseParams, make_noise_bank, mixture, optimise_noise, taught

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
    bank = make_noise_bank(model, range(4), (1, 8, 8), [2], PARAMS, seed=0)
    assert bank.positive.shape == (4, 3, 1, 8, 8)
    assert bank.negative.shape == (1, 3, 1, 8, 8)
    assert bank.negative_classes.tolist() == [2]
    for label in range(4):
        assert confidence(model, bank.positive[label], label) > 0.6
    assert confidence(model, bank.negative[0], 2) < 0.01


def test_the_norm_is_held_down_by_lam(model: nn.Module) -> None:
    sizes = [
        np.linalg.norm(
            make_noise_bank(model, range(4), (1, 8, 8), [0], NoiseParams(per_label=2, steps=40, lam=lam), seed=0).positive
        )
        for lam in (0.0, 0.1, 10.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_frozen_model_stays_as_it_is(model: nn.Module) -> None:
    before, mode = digest(model), model.training
    model.zero_grad(set_to_none=True)
    make_noise_bank(model, range(4), (1, 8, 8), [0], PARAMS, seed=0)
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
    whole = make_noise_bank(model, range(4), (1, 8, 8), [1], few, seed=0)
    monkeypatch.setattr("megu.unlearning.noise.AT_ONCE", 4)
    parts = make_noise_bank(model, range(4), (1, 8, 8), [1], few, seed=0)
    np.testing.assert_allclose(parts.positive, whole.positive, atol=1e-4)
    np.testing.assert_allclose(parts.negative, whole.negative, atol=1e-4)


def test_the_same_seed_gives_the_same_bank(model: nn.Module) -> None:
    first, second, other = (make_noise_bank(model, range(4), (1, 8, 8), [0], PARAMS, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.positive, second.positive)
    assert not np.array_equal(first.positive, other.positive)


def test_on_a_cpu_it_is_made_in_float32_whatever_training_multiplies_in(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, banks = NoiseParams(per_label=2, steps=5), []
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr("megu.core.device.fast_dtype", lambda device, dtype=dtype: dtype)
        banks.append(make_noise_bank(model, range(4), (1, 8, 8), [0], few, seed=0))
    np.testing.assert_array_equal(banks[0].positive, banks[1].positive)


def test_the_mixture_by_hand() -> None:
    """.7 * 10 + .3 * (-5) = 5.5"""
    assert mixture(torch.tensor(10.0), torch.tensor(-5.0), 0.7).item() == pytest.approx(5.5)


def test_positive_noise_is_made_of_the_labels_that_are_asked_for(model: nn.Module) -> None:
    """Each once, whatever their order; a label's noise says the label still."""
    bank = make_noise_bank(model, [3, 1, 3], (1, 8, 8), [2], PARAMS, seed=0)
    assert bank.positive_classes.tolist() == [1, 3]
    assert bank.positive.shape == (2, 3, 1, 8, 8)
    for row, label in enumerate((1, 3)):
        assert confidence(model, bank.positive[row], label) > 0.6
    again = NoiseBank.from_arrays(bank.to_arrays())
    for name, value in bank.to_arrays().items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_every_pass_is_counted(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 steps of 3 images for each of 2 positive labels and 1 negative class, however many go together."""
    for together in (256, 4):
        monkeypatch.setattr("megu.unlearning.noise.AT_ONCE", together)
        with counting() as passes:
            make_noise_bank(model, [0, 1], (1, 8, 8), [2], PARAMS, seed=0)
        assert sum(passes) == 60 * 3 * 3


def test_what_is_taught_most_by_hand() -> None:
    """Means .5, .3, 0, .2: the first alone makes up half, the first two .8, and what is never taught is never made."""
    targets = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.0, 0.4]])
    assert taught(targets, 0.5) == [0]
    assert taught(targets, 0.51) == [0, 1]
    assert taught(targets, 0.8) == [0, 1]
    assert taught(targets, 0.81) == taught(targets, 1.0) == [0, 1, 3]


def test_a_coverage_that_is_reached_in_float32_is_reached() -> None:
    """Ten labels of a tenth each, as the targets are kept: .95 of them are ten, .9 are nine; of those that are alike the smaller."""
    targets = np.full((7, 10), 0.1, dtype=np.float32)
    assert taught(targets, 0.95) == list(range(10))
    assert taught(targets, 0.9) == list(range(9))


@given(
    hnp.arrays(np.float32, (5, 6), elements=st.floats(0, 1, width=32)),
    st.floats(0.01, 1),
)
def test_what_is_taught_covers_what_is_asked_and_no_label_less_would(weights: np.ndarray, coverage: float) -> None:
    weights[:, 2] += 0.5
    targets = weights / weights.sum(axis=1, keepdims=True)
    shares = targets.astype(np.float64).mean(axis=0)
    labels = taught(targets, coverage)
    assert labels == sorted(set(labels))
    assert (shares[labels] > 0).all()
    covered = shares[labels].sum() / shares.sum()
    assert covered >= coverage - 1e-8
    assert covered - shares[labels].min() / shares.sum() < coverage, "one label less is too few"
    assert shares[labels].min() >= np.delete(shares, labels).max(initial=0), "the largest"
