from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_fixtures import Linear, context, points, request
from torch import nn

from megu.unlearning.methods.baselines.salun import SalunParams, masked_sgd, salient, summed, unlearn


def test_the_mask_by_hand() -> None:
    """|3|, |-1| | |2|, |-4|: the top half of the four, over all tensors together, is 3 and -4."""
    masks = salient([torch.tensor([[3.0, -1.0]]), torch.tensor([2.0, -4.0])], 0.5)
    assert [mask.tolist() for mask in masks] == [[[True, False]], [False, True]]


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=30), st.floats(0.01, 1))
def test_the_mask_has_the_share_and_nothing_larger_is_left_out(values: list[float], share: float) -> None:
    gradient = torch.tensor(values)
    (mask,) = salient([gradient], share)
    assert int(mask.sum()) == max(int(share * len(values)), 1)
    if not mask.all():
        assert gradient[mask].abs().min() >= gradient[~mask].abs().max()


def test_the_gradients_are_summed_before_their_size_is_taken() -> None:
    """Two samples with opposite gradients ((p - y) xᵀ with p = .5) leave nothing in the first column; the second has .5 twice."""
    forget = points([[255, 0], [255, 0], [0, 255], [0, 255]], [0, 1, 1, 1])
    (found,) = summed(Linear([[0.0, 0.0], [0.0, 0.0]]), forget, 1, 0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.0, -1.0]]))


def test_weights_outside_the_mask_are_untouched_bit_for_bit_and_those_inside_move(original: nn.Module) -> None:
    forget, retain, given_ = request(original, "salun")
    params: SalunParams = given_.params
    assert params.weight_decay > 0
    masks = salient(summed(original, forget, params.batch_size, given_.seed), params.share)
    found = unlearn(original, forget, retain, given_)
    moved = total = 0
    for (name, before), after, mask in zip(original.named_parameters(), found.parameters(), masks, strict=True):
        assert torch.equal(before[~mask].view(torch.int32), after[~mask].view(torch.int32)), name
        moved, total = moved + int((before[mask] != after[mask]).sum()), total + int(mask.sum())
    assert moved > 0.95 * total
    everything = sum(parameter.numel() for parameter in original.parameters())
    assert total == everything // 2


def test_weight_decay_acts_inside_the_mask_alone() -> None:
    """Gradient 0: inside, the weight falls by the decay; outside nothing."""
    model = Linear([[2.0, 3.0]])
    optimiser = masked_sgd([torch.tensor([[True, False]])], 1.0, 0.1)(model)
    (0 * model.weight.sum()).backward()
    optimiser.step()
    torch.testing.assert_close(model.weight.data, torch.tensor([[1.8, 3.0]]))


@pytest.mark.usefixtures("float32")
def test_a_step_against_the_formula() -> None:
    """Two classes, so the wrong label is the other one. One batch of all; share 1 changes every weight."""
    start = [[1.0, -0.5], [0.3, 0.8]]
    forget, retain = points([[255, 51]], [0]), points([[0, 255], [102, 204]], [1, 1])
    params = SalunParams(share=1.0, epochs=1, lr=0.5, batch_size=3, weight_decay=0.1)
    found = unlearn(Linear(start), forget, retain, context(params, 2))
    weight = torch.tensor(start)
    x = torch.cat([forget.batch(slice(None)), retain.batch(slice(None))]).flatten(1)
    p = torch.softmax(x @ weight.T, dim=1)
    wrong = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    expected = weight - 0.5 * ((p - wrong).T @ x / 3 + 0.1 * weight)
    torch.testing.assert_close(found.weight.data, expected)  # type: ignore[union-attr]
