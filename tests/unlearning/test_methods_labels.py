"""Fine-tuning, NegGrad+, random labels, Boundary Shrink: which samples are taught which labels, with what weight."""

from __future__ import annotations

import math

import pytest
import torch
from method_fixtures import Linear, context, points, request
from torch import nn

from megu.core.seeds import generator
from megu.data.tensors import ImageSet
from megu.training.weights import digest
from megu.unlearning.methods.baselines import boundary_shrink, finetune, neggrad_plus
from megu.unlearning.methods.baselines.boundary_shrink import moved, nearest_wrong
from megu.unlearning.methods.baselines.finetune import FinetuneParams
from megu.unlearning.methods.baselines.neggrad_plus import NegGradPlusParams, weighted
from megu.unlearning.methods.common import allowed, wrong_labels

START = [[1.0, -0.5], [0.3, 0.8]]
FORGET, RETAIN = points([[255, 51], [204, 102]], [0, 0]), points([[51, 255], [102, 204]], [1, 1])


def ascent(weight: torch.Tensor, data: ImageSet) -> torch.Tensor:
    """The gradient of the mean cross-entropy of a linear model: (p - y) xᵀ."""
    x = data.batch(slice(None)).flatten(1)
    truth = torch.nn.functional.one_hot(data.labels, 2).float()
    return (torch.softmax(x @ weight.T, dim=1) - truth).T @ x / len(data)


def test_the_weighting_of_neggrad_by_hand() -> None:
    """Retain: logits alike, CE = ln 2. Forget: logits (ln 3, 0), class 0, CE = ln 4/3."""
    found = weighted(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]), alpha=0.95)
    assert found.item() == pytest.approx(0.95 * math.log(2) - 0.05 * math.log(4 / 3), rel=1e-5)


@pytest.mark.usefixtures("float32")
def test_a_step_of_neggrad_against_the_formula() -> None:
    params = NegGradPlusParams(alpha=0.8, epochs=1, lr=0.5, batch_size=2)
    found = neggrad_plus.unlearn(Linear(START), FORGET, RETAIN, context(params, 2))
    weight = torch.tensor(START)
    expected = weight - 0.5 * (0.8 * ascent(weight, RETAIN) - 0.2 * ascent(weight, FORGET))
    torch.testing.assert_close(found.weight.data, expected)  # type: ignore[union-attr]


@pytest.mark.usefixtures("float32")
def test_a_step_of_fine_tuning_against_the_formula() -> None:
    params = FinetuneParams(epochs=1, lr=0.5, batch_size=2, weight_decay=0.1, schedule="constant")
    found = finetune.unlearn(Linear(START), FORGET, RETAIN, context(params, 2))
    weight = torch.tensor(START)
    torch.testing.assert_close(found.weight.data, weight - 0.5 * (ascent(weight, RETAIN) + 0.1 * weight))  # type: ignore[union-attr]


def test_fine_tuning_touches_the_retain_set_alone(original: nn.Module) -> None:
    forget, retain, given = request(original, "finetune")
    whole = digest(finetune.unlearn(original, forget, retain, given))
    other = forget.subset([0, 0])
    assert digest(finetune.unlearn(original, other, retain, given)) == whole
    changed = ImageSet(retain.images.flip(3), retain.labels, retain.mean, retain.std)
    assert digest(finetune.unlearn(original, forget, changed, given)) != whole


def test_random_labels_are_wrong_and_even() -> None:
    labels = torch.arange(3000) % 3 % 2
    found = wrong_labels(allowed(labels, (), 4), generator(0, "labels"))
    assert not (found == labels).any()
    for own in (0, 1):
        shares = torch.bincount(found[labels == own], minlength=4) / (labels == own).sum()
        others = torch.ones(4, dtype=torch.bool)
        others[own] = False
        torch.testing.assert_close(shares[others], torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_random_labels_are_never_another_class_that_is_being_forgotten() -> None:
    labels = torch.tensor([0, 1] * 200)
    assert set(wrong_labels(allowed(labels, (0, 1), 4), generator(0, "labels")).tolist()) == {2, 3}


#: x = .5 in both pixels (128): logits (2, 1, 0), p = (.665, .245, .090), dCE/dx = Wᵀ(p - y) = (-1.07, .22): signs (-, +).
WEIGHT = [[4.0, 0.0], [0.0, 2.0], [3.0, -3.0]]


def test_the_step_across_the_boundary_by_hand() -> None:
    """bound .1 of the pixel's range: 128 - 25.5 and 128 + 25.5, rounded to whole pixels; whatever the normalisation is."""
    image = points([[128, 128]], [0])
    found = moved(Linear(WEIGHT), image, slice(None), 0.1).flatten() * 255
    torch.testing.assert_close(found, torch.tensor([102.0, 154.0]))
    shifted = ImageSet(image.images, image.labels, torch.tensor([0.5]), torch.tensor([0.25]))
    # Normalised, the input is about 0: p is even, dCE/dx = (-8/3 + 1, 2/3 - 1): signs (-, -).
    again = moved(Linear(WEIGHT), shifted, slice(None), 0.1).flatten()
    torch.testing.assert_close((again * 0.25 + 0.5) * 255, torch.tensor([102.0, 102.0]))


def test_a_pixel_stays_in_its_range() -> None:
    found = moved(Linear(WEIGHT), points([[10, 250]], [0]), slice(None), 0.1).flatten() * 255
    torch.testing.assert_close(found, torch.tensor([0.0, 255.0]))


def test_the_nearest_wrong_class_by_hand() -> None:
    """Moved to (.4, .6) the logits are (1.6, 1.2, -.6): class 0 is still ahead, so the nearest wrong one is 1; without it, 2."""
    model, image = Linear(WEIGHT), points([[128, 128]], [0])
    for forgotten, expected in (((), 1), ((0,), 1), ((0, 1), 2)):
        assert nearest_wrong(model, image, allowed(image.labels, forgotten, 3), 0.1).tolist() == [expected]


def test_it_is_the_moved_image_that_decides() -> None:
    """At x = (.5, .5) the second likeliest is class 2, across the boundary it is class 1: (2, .95, 1) becomes (1.6, 1.14, .6)."""
    model = Linear([[4.0, 0.0], [0.0, 1.9], [3.0, -1.0]])
    image = points([[128, 128]], [0])
    assert model(image.batch(slice(None))).argsort(descending=True).tolist() == [[0, 2, 1]]
    assert nearest_wrong(model, image, allowed(image.labels, (), 3), 0.1).tolist() == [1]


@pytest.mark.usefixtures("float32")
def test_a_step_of_boundary_shrink_against_the_formula() -> None:
    """Two classes, so the nearest wrong one is the other; the image that is taught is the one that was not moved."""
    params = boundary_shrink.BoundaryShrinkParams(epochs=1, lr=0.5, batch_size=2)
    found = boundary_shrink.unlearn(Linear(START), FORGET, RETAIN, context(params, 2, (0,)))
    weight = torch.tensor(START)
    taught = ImageSet(FORGET.images, torch.tensor([1, 1]), FORGET.mean, FORGET.std)
    torch.testing.assert_close(found.weight.data, weight - 0.5 * ascent(weight, taught))  # type: ignore[union-attr]
