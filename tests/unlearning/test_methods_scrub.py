from __future__ import annotations

import math

import pytest
import torch
from method_fixtures import Linear, context, points

from megu.unlearning.methods.baselines.scrub import ScrubParams, Turn, maximised, minimised, turns, unlearn

PARAMS = ScrubParams(temperature=2.0, gamma=0.9, alpha=0.5)
#: Teacher at temperature 2: (.75, .25). Student: (.5, .5). KL = .75 ln 1.5 + .25 ln .5, times 2².
TEACHER, STUDENT = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
KL = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_the_losses_by_hand() -> None:
    assert maximised(STUDENT, TEACHER, PARAMS).item() == pytest.approx(-KL, rel=1e-5)
    expected = 0.9 * math.log(2) + 0.5 * KL
    assert minimised(STUDENT, TEACHER, torch.tensor([1]), PARAMS).item() == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_summed_over_classes_and_averaged_over_samples() -> None:
    many = maximised(STUDENT.repeat(5, 1), TEACHER.repeat(5, 1), PARAMS)
    assert many.item() == pytest.approx(-KL, rel=1e-5)


def test_the_schedule_by_hand() -> None:
    """Three epochs of two retain batches; the first two begin with the one forget batch; each kind counts on."""
    up, down = (lambda at: Turn(True, at)), (lambda at: Turn(False, at))
    assert turns(3, 2, 1, 2) == [up(0), down(0), down(1), up(1), down(2), down(3), down(4), down(5)]
    assert turns(1, 0, 5, 1) == [down(0)]


@pytest.mark.usefixtures("float32")
def test_two_turns_against_the_formula() -> None:
    """One epoch, one batch of each set: SGD with momentum .9 and weight decay, written out."""
    start = [[1.0, -0.5], [0.3, 0.8]]
    forget, retain = points([[255, 51], [204, 0]], [0, 0]), points([[0, 255], [102, 204], [0, 51]], [1, 1, 1])
    params = ScrubParams(epochs=1, msteps=1, lr=0.5, weight_decay=0.1, batch_size=3, forget_batch_size=2)
    found = unlearn(Linear(start), forget, retain, context(params, 2))

    weight = torch.tensor(start, requires_grad=True)
    teacher, temperature = torch.tensor(start), params.temperature
    velocity = torch.zeros(2, 2)

    def divergence(x: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(x @ teacher.T / temperature, dim=1)
        q = torch.softmax(x @ weight.T / temperature, dim=1)
        return (p * (p / q).log()).sum() / len(x) * temperature**2

    lost, kept = forget.batch(slice(None)).flatten(1), retain.batch(slice(None)).flatten(1)
    for turn in range(2):
        if turn == 0:
            loss = -divergence(lost)
        else:
            truth = torch.softmax(kept @ weight.T, dim=1)[:, 1]
            loss = params.gamma * -truth.log().mean() + params.alpha * divergence(kept)
        (gradient,) = torch.autograd.grad(loss, weight)
        velocity = 0.9 * velocity + gradient + params.weight_decay * weight.detach()
        weight = (weight.detach() - params.lr * velocity).requires_grad_(True)
    torch.testing.assert_close(found.weight.data, weight.detach(), rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]


def test_more_forget_passes_than_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="msteps"):
        ScrubParams(epochs=1, msteps=2)
