"""The paper's form of MeGU: one label a forget sample, all of them under noise, labels on the retain samples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import Linear, accuracy, context, points, request
from torch import nn

from megu.training.loop import counting, predict
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.methods import METHODS
from megu.unlearning.methods.megu_published import MeguPublishedParams
from megu.unlearning.noise import NoiseBank

METHOD = METHODS["megu_published"]


def test_the_defaults_are_the_papers() -> None:
    """Eq 11's alpha, three epochs, 10,000 retain samples, every forget sample under the whole mixture."""
    assert MeguPublishedParams() == MeguPublishedParams(
        alpha=0.7, epochs=3, retain_samples=10_000, noise_share=1.0, noise_scale=1.0
    )
    assert MeguPublishedParams(alpha=0.4).positive_share == 0.4
    assert METHOD.needed(MeguPublishedParams()) == {"perturbing", "noise", "retain"}


def test_it_teaches_the_rank_label(original: nn.Module) -> None:
    """Every class is said to look like class 3, so that is what each image of class 2 is taken for."""
    forget, retain, given = request(original, "megu_published")
    answers = predict(original, forget).logits.numpy()
    alike = np.tile([[0.1], [0.2], [0.1], [0.6]], (1, 4))
    made = perturb(alike, answers, forget.labels.numpy(), (2,), PerturbParams(label="rank", tau=0.25))
    unlearned = METHOD.run(original, forget, retain, replace(given, perturbing=made))
    assert float((predict(unlearned, forget).logits.argmax(1) == 3).float().mean()) > 0.9
    assert accuracy(unlearned, retain) > 0.9


def bank(positive: float, negative: float) -> NoiseBank:
    """Of two pixels a row, for two classes."""
    made = [np.full((2, 1, 1, 1, 2), value, dtype=np.float32) for value in (positive, negative)]
    return NoiseBank(made[0], np.arange(2), made[1], np.arange(2))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("noisy", [False, True])
def test_what_is_minimised_by_hand(noisy: bool) -> None:
    """Adam's first step is the rate against the sign of each slope. W = 0, so every answer is (1/2, 1/2). The forget sample (0, 1) is taught
    1, the retain sample (1, 0) has label 0: W becomes rate * [[1, -1], [-1, 1]]. Under a noise of .5 * 8 + .5 * -2 = 3 on both pixels
    the forget sample is (3, 4): it outweighs the retain sample, and the first column turns around."""
    forget, retain = points([[0, 255]], [0]), points([[255, 0]], [0])
    target = np.array([[0.0, 1.0]])
    made = Perturbing(np.array([1]), target.astype(np.float32), target, np.array([math.nan]))
    params = MeguPublishedParams(alpha=0.5, epochs=1, lr=0.2, batch_size=2, noise_share=float(noisy))
    given = context(params, 2, perturbing=made, noise=bank(8, -2))
    found = METHOD.run(Linear([[0.0, 0.0], [0.0, 0.0]]), forget, retain, given).get_parameter("weight")
    first = -1.0 if noisy else 1.0
    # The only step is in the middle of the fall to 0: half of the peak.
    expected = 0.1 * torch.tensor([[first, -1.0], [-first, 1.0]])
    torch.testing.assert_close(found.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("changes", "retained"), [({}, 150), ({"retain_samples": 62}, 62)])
def test_every_pass_is_counted(original: nn.Module, changes: dict[str, Any], retained: int) -> None:
    """Six epochs over the 50 forget samples and the drawn retain samples, in whole batches of 16."""
    forget, retain, given = request(original, "megu_published")
    with counting() as passes:
        METHOD.run(original, forget, retain, replace(given, params=replace(given.params, **changes)))
    assert sum(passes) == 6 * ((50 + retained) // 16) * 16


def test_one_image_is_enough_to_forget_and_to_keep(original: nn.Module) -> None:
    forget, retain, given = request(original, "megu_published")
    made = given.perturbing
    assert made is not None
    single = Perturbing(made.labels[:1], made.targets[:1], made.reasoning[:1], made.entropies[:1])
    for count in (40, 1):
        few = retain.subset(np.arange(count))
        unlearned = METHOD.run(original, forget.subset([0]), few, replace(given, perturbing=single))
        assert all(torch.isfinite(value).all() for value in unlearned.state_dict().values())
