from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method_fixtures import Linear, request
from tiny import images
from torch import nn

from megu.core.seeds import generator
from megu.unlearning.methods.baselines import unsir
from megu.unlearning.methods.baselines.unsir import UnsirParams, error_maximising, per_class, squared_length


def test_the_squared_length_by_hand() -> None:
    assert squared_length(torch.tensor([[[[3.0, 4.0]]], [[[1.0, 0.0]]]])).tolist() == [25.0, 1.0]


def test_the_noise_against_the_papers_objective(original: nn.Module) -> None:
    """Adam on -CE(f(N), y) + lam * mean ||N||², as UNSIR has it, over the batch as a whole."""
    params = UnsirParams(noises=3, noise_steps=5)
    labels = torch.tensor([2, 2, 2])
    found = error_maximising(original, labels, (1, 8, 8), params, seed=4)
    noise = torch.randn(3, 1, 8, 8, generator=generator(4, "noise")).requires_grad_(True)
    optimiser = torch.optim.Adam([noise], lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        (-F.cross_entropy(original(noise), labels) + 0.1 * (noise**2).sum(dim=(1, 2, 3)).mean()).backward()
        optimiser.step()
    original.zero_grad(set_to_none=True)
    torch.testing.assert_close(found, noise.detach(), rtol=1e-3, atol=1e-3)


def test_the_noise_maximises_the_error(original: nn.Module) -> None:
    labels = torch.full((8,), 2)
    start = torch.randn(8, 1, 8, 8, generator=generator(0, "noise"))
    made = error_maximising(original, labels, (1, 8, 8), UnsirParams(lam=0.0), seed=0)
    with torch.no_grad():
        assert F.cross_entropy(original(made), labels) > F.cross_entropy(original(start), labels) + 1


def test_the_drawn_retain_samples() -> None:
    data = images(100)
    found = per_class(data, 7, seed=0)
    assert torch.bincount(found.labels).tolist() == [7, 7, 7, 7]
    assert len(per_class(data, 10_000, seed=0)) == 100


def test_what_each_step_is_shown(original: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Impair: 8 noises x 10 copies of the forget class, as that class, and 45 a retained class. Repair: those alone."""
    real, shown = unsir.teach, []

    def watched(model: nn.Module, images: Any, targets: Any, loss: Any, optimiser: Any, context: Any, **more: Any) -> nn.Module:
        shown.append((images, more, optimiser(model).defaults["lr"]))
        return real(model, images, targets, loss, optimiser, context, **more)

    monkeypatch.setattr(unsir, "teach", watched)
    forget, retain, given = request(original, "unsir")
    unsir.unlearn(original, forget, retain, given)
    (mixed, impair, first), (kept, repair, second) = shown
    assert torch.bincount(mixed.labels).tolist() == [45, 45, 80, 45]
    assert torch.bincount(kept.labels, minlength=4).tolist() == [45, 45, 0, 45]
    assert (first, second) == (0.02, 0.01)
    assert repair["disturb"] is None
    at = torch.tensor([0, 8, 79, 80])
    inputs = mixed.batch(at)
    noisy = impair["disturb"](inputs, at, 0)
    labels = torch.full((8,), 2)
    noise = error_maximising(original, labels, (1, 8, 8), given.params, given.seed)
    assert torch.equal(noisy[:3], noise[[0, 0, 7]])
    assert torch.equal(noisy[3], inputs[3]), "a retain sample stays"


def test_the_network_is_in_evaluation_mode_for_the_noise() -> None:
    seen: list[bool] = []

    class Watched(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.training)
            return super().forward(x)

    model = Watched([[1.0, 0.0], [0.0, 1.0]])
    error_maximising(model, torch.tensor([0]), (1, 1, 2), UnsirParams(noise_steps=2), seed=0)
    assert seen == [False, False]
    assert model.training
