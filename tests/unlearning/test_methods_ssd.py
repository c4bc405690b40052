from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from method_fixtures import Linear, context, points, request
from torch import nn

from megu.core.errors import MeguError
from megu.unlearning.methods.baselines.ssd import SsdParams, dampened, importance, unlearn


def forgotten() -> Linear:
    """Both classes alike, so p = (.5, .5) whatever x is."""
    return Linear([[2.0, 3.0], [2.0, 3.0]])


FORGET, RETAIN = points([[255, 0]], [0]), points([[0, 255]], [1])


def test_the_importance_by_hand() -> None:
    """x = (1, 0), y = 0: dCE/dW = (p - y) xᵀ = ((-.5, 0), (.5, 0)); squared, .25 in the first column."""
    (found,) = importance(forgotten(), FORGET, 1, 0, "test")
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0], [0.25, 0.0]]))


def test_the_importance_is_the_mean_of_the_squared_batch_gradients() -> None:
    """Two samples with opposite gradients: alone each counts .25; in one batch they cancel."""
    both = points([[255, 0], [255, 0]], [0, 1])
    (alone,) = importance(forgotten(), both, 1, 0, "test")
    (together,) = importance(forgotten(), both, 2, 0, "test")
    torch.testing.assert_close(alone, torch.tensor([[0.25, 0.0], [0.25, 0.0]]))
    torch.testing.assert_close(together, torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("alpha", "lam", "first"),
    [
        (1.0, 1.0, 1.0),  # I_f = .25 > 1 * I = .125: 2 * min(.125 / .25, 1)
        (1.0, 0.5, 0.5),  # 2 * min(.5 * .125 / .25, 1)
        (1.0, 4.0, 2.0),  # min(4 * .125 / .25, 1) = 1: never amplified
        (2.0, 0.0, 2.0),  # I_f > 2 * I is .25 > .25: not selected
        (1.9, 0.0, 0.0),
    ],
)
def test_the_dampening_of_a_whole_run_by_hand(alpha: float, lam: float, first: float) -> None:
    """All data: the means of .25 and 0, so I = .125 everywhere. The second column is nothing to the forget set: it stays 3."""
    model = forgotten()
    found = unlearn(model, FORGET, RETAIN, context(SsdParams(alpha=alpha, lam=lam, batch_size=1), 2))
    torch.testing.assert_close(found.weight.data, torch.tensor([[first, 3.0], [first, 3.0]]))  # type: ignore[union-attr]


def test_where_nothing_matters_nothing_is_touched() -> None:
    """0 / 0 must not come in."""
    weight, zero = torch.tensor([1.0, -2.0]), torch.zeros(2)
    assert torch.equal(dampened(weight, zero, zero, 10.0, 1.0), weight)
    assert torch.equal(dampened(weight, zero, torch.ones(2), 10.0, 1.0), torch.tensor([0.0, -0.0]))


def test_a_network_against_the_formula(original: nn.Module) -> None:
    forget, retain, given = request(original, "ssd")
    params = SsdParams(alpha=2.0, lam=0.5, batch_size=1000)
    from dataclasses import replace

    found = unlearn(original, forget, retain, replace(given, params=params))

    def squared(data: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        return [g**2 for g in torch.autograd.grad(F.cross_entropy(original(data), labels), list(original.parameters()))]

    lost = squared(forget.batch(slice(None)), forget.labels)
    inputs = torch.cat([forget.batch(slice(None)), retain.batch(slice(None))])
    every = squared(inputs, torch.cat([forget.labels, retain.labels]))
    changed = 0
    for before, after, whole, part in zip(original.parameters(), found.parameters(), every, lost, strict=True):
        # Where the comparison is closer than the sums' rounding, either answer is right.
        clear = (part / (2.0 * whole) - 1).abs() > 1e-3
        expected = torch.where(part > 2.0 * whole, before * (0.5 * whole / part).clamp(max=1), before)
        torch.testing.assert_close(after[clear], expected[clear], rtol=1e-3, atol=1e-6)
        changed += int((after != before).sum())
    assert changed > 100
    for (name, before), after in zip(original.named_buffers(), found.buffers(), strict=True):
        assert torch.equal(before, after), name


def test_a_broken_original_is_said() -> None:
    model = Linear([[float("nan"), 0.0], [0.0, 0.0]])
    with pytest.raises(MeguError, match="importance of a weight is not finite"):
        unlearn(model, FORGET, RETAIN, context(SsdParams(batch_size=1), 2))
