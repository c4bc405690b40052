"""What forget samples are taught while they are learned."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import Crossings

from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.sharpness import entropies
from megu.unlearning.methods.steering import EARLIER, FURTHEST, RECENT, RELEASE, STEERED, Steering, between, places_among

#: Samples 0 and 1 are of class 2, which leaves; sample 2 is of class 0, which stays.
LABELS = torch.tensor([2, 2, 0])
CLEAN = torch.zeros(3, dtype=torch.bool)


def soft(wanted: tuple[float, float, float] = (0.3, 0.6, math.nan)) -> Perturbing:
    """Targets of 1.03, .95 and .8 nats."""
    reasoning = np.array([[0.5, 0.3, 0.0, 0.2], [0.2, 0.2, 0.0, 0.6], [0.0, 0.5, 0.0, 0.5]])
    targets = np.array([[0.5, 0.3, 0.0, 0.2], [0.2, 0.2, 0.0, 0.6], [0.7, 0.15, 0.0, 0.15]], dtype=np.float32)
    return Perturbing(np.array([0, 3, 1]), targets, reasoning, np.array(wanted))


def steering(
    made: Perturbing | None = None, gain: float = 0.1, follow: float = 0.5, last: float | None = None, steps: int = 160
) -> Steering:
    return Steering(made or soft(), LABELS, gain, follow, follow if last is None else last, steps)


def saying(*wanted: float) -> torch.Tensor:
    """Logits of answers with these entropies, in nats, the first class the likeliest."""
    found = []
    for entropy in wanted:
        low, high = 0.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2
            said = torch.tensor([[middle, 0, 0, 0]], dtype=torch.float64).softmax(dim=1)
            low, high = (middle, high) if float(entropies(said)) > entropy else (low, middle)
        found.append([low, 0.0, 0.0, 0.0])
    return torch.tensor(found)


def test_the_surest_sample_is_taught_the_least_entropy() -> None:
    """Wanted .3 and .6, so .3 + .3 p at place p. The two samples have places .25 and .75, whichever of them is the surer: .375 and .525."""
    both = torch.tensor([0, 1])
    for logits, expected in ((saying(0.1, 0.2), [0.375, 0.525]), (saying(0.2, 0.1), [0.525, 0.375])):
        found = steering(gain=1e-9).at(both, logits, CLEAN[:2])
        np.testing.assert_allclose(entropies(found), expected, atol=1e-4)


def test_what_is_taught_is_halfway_between_the_target_and_the_answer() -> None:
    """Of R = (.5, .3, 0, .2) and an answer a the square root of both, to a power: its logarithms are a line in theirs."""
    logits = torch.tensor([[0.0, 2.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = steering(gain=1e-9).at(torch.tensor([0, 1]), logits, CLEAN[:2])[0]
    halfway = (np.log([0.5, 0.3, 0.2]) + logits[0, [0, 1, 3]].numpy()) / 2
    slope = (math.log(found[0]) - math.log(found[1])) / (halfway[0] - halfway[1])
    assert slope == pytest.approx((math.log(found[1]) - math.log(found[3])) / (halfway[1] - halfway[2]), rel=1e-3)
    assert slope > 0
    own = steering(gain=1e-9, follow=0.0).at(torch.tensor([0, 1]), logits, CLEAN[:2])[0]
    target = np.log([0.5, 0.3, 0.2])
    slope = (math.log(own[0]) - math.log(own[1])) / (target[0] - target[1])
    assert slope == pytest.approx((math.log(own[1]) - math.log(own[3])) / (target[1] - target[2]), rel=1e-3)


def test_the_last_target_is_the_models_answer_made_as_sure_as_it_should_be() -> None:
    """From R alone to the answer alone in three steps: the logarithms of each target are a line in those of the mixture."""
    logits = torch.tensor([[0.0, 2.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    targets = steering(gain=1e-9, follow=0.0, last=1.0, steps=3)
    for share in (0.0, 0.5, 1.0):
        found = targets.at(torch.tensor([0, 1]), logits, CLEAN[:2])[0]
        mixed = (1 - share) * np.log([0.5, 0.3, 0.2]) + share * logits[0, [0, 1, 3]].numpy()
        slopes = [
            (math.log(found[a]) - math.log(found[b])) / (mixed[i] - mixed[j]) for a, b, i, j in ((0, 1, 0, 1), (1, 3, 1, 2))
        ]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)
        assert found[2] == 0


def test_a_sample_whose_class_stays_keeps_its_target() -> None:
    found = steering().at(torch.tensor([2, 0]), saying(0.5, 0.5), CLEAN[:2])
    assert found[0].tolist() == soft().targets[2].tolist()
    assert found[1].tolist() != soft().targets[0].tolist()


@pytest.mark.parametrize(("gain", "wanted"), [(0.0, (0.3, 0.6, math.nan)), (0.1, (math.nan,) * 3)])
def test_without_gain_or_without_an_entropy_there_is_no_steering(gain: float, wanted: tuple[float, float, float]) -> None:
    targets = steering(soft(wanted), gain)
    every = torch.arange(3)
    for _ in range(3):
        assert torch.equal(targets.at(every, torch.zeros(3, 4), CLEAN), torch.from_numpy(soft().targets))
    assert torch.equal(targets.judged(every, torch.zeros(3, 4)), torch.from_numpy(soft().targets))
    assert all(torch.isfinite(value).all() for value in targets.state_dict().values())


def test_what_the_model_is_off_is_added_up_at_its_place() -> None:
    """One sample alone has place 1/2, in cell 5 of 10, where .45 is wanted. It answers 0 nats: .1 * .45 is put on that cell, and as much again
    at the next step. Between the middles of cells 4 and 5 a half of it is taught."""
    targets, alone = steering(), torch.tensor([0])
    for times in (1, 2):
        found = targets.at(alone, torch.tensor([[99.0, 0, 0, 0]]), CLEAN[:1])
        expected = [0.0] * STEERED
        expected[5] = times * 0.045
        np.testing.assert_allclose(targets.offsets[0], expected, atol=1e-6)
        assert float(entropies(found)[0]) == pytest.approx(0.45 + times * 0.0225, abs=1e-3)


def test_what_was_added_up_is_let_go_where_the_error_has_turned() -> None:
    """Cell 5 of 10 has a correction of .5 nats, and the model, too unsure there in the last steps, is now where it should be: a tenth
    is let go. Cells 4 and 6, where the error has the sign of the correction or is 0, keep theirs."""
    targets = steering()
    targets.offsets[0, 4:7] = torch.tensor([0.5, 0.5, -0.5])
    targets.errors[0, 4:7] = torch.tensor([0.1, -0.1, 0.0])
    targets.at(torch.tensor([0]), saying(0.45), CLEAN[:1])
    np.testing.assert_allclose(targets.offsets[0, 4:7], [0.5, RELEASE * 0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(targets.errors[0, 4:7], [0.1, EARLIER * -0.1, 0.0], atol=1e-5)


def test_a_model_that_is_where_it_should_be_is_not_steered() -> None:
    targets = steering()
    targets.at(torch.tensor([0, 1]), saying(0.525, 0.375), CLEAN[:2])
    np.testing.assert_allclose(targets.offsets, torch.zeros(1, STEERED), atol=1e-5)


def test_noisy_samples_are_taught_but_say_nothing_of_how_sure_the_model_is() -> None:
    """They have their places among themselves, and only the clean ones move the offsets."""
    targets, noisy = steering(), torch.tensor([True, False])
    found = targets.at(torch.tensor([0, 1]), saying(0.1, 0.45), noisy)
    np.testing.assert_allclose(targets.offsets, torch.zeros(1, STEERED), atol=1e-5)
    np.testing.assert_allclose(entropies(found), [0.45, 0.45], atol=1e-4)
    targets.at(torch.tensor([0, 1]), saying(0.1, 0.1), noisy)
    assert float(targets.offsets.sum()) > 0


def test_a_sample_has_its_place_among_those_seen_last() -> None:
    """A batch of one sample each: the third, at .2 nats, is between the first two, at .1 and .3."""
    targets, alone = steering(gain=1e-9), torch.tensor([0])
    for entropy in (0.1, 0.3):
        targets.at(alone, saying(entropy), CLEAN[:1])
    found = targets.at(alone, saying(0.2), CLEAN[:1])
    assert float(entropies(found)[0]) == pytest.approx(0.45, abs=1e-3), "place 1/2"
    for _ in range(2 * RECENT):
        targets.at(alone, saying(0.9), CLEAN[:1])
    assert float(entropies(targets.at(alone, saying(0.2), CLEAN[:1]))[0]) < 0.31, (
        "of those long ago nothing is left: it is the surest"
    )


def test_each_class_has_its_own_distribution() -> None:
    """Class 2 wants 0, class 0 wants 1 nat; in one batch, with the same answers."""
    reasoning = np.array([[0.0, 0.6, 0.0, 0.4]] * 4)
    made = Perturbing(np.ones(4, dtype=np.int64), reasoning.astype(np.float32), reasoning, np.array([0.0, 0.0, 0.6, 0.6]))
    targets = Steering(made, torch.tensor([2, 2, 0, 0]), 1e-9, 0.5, 0.5, 1)
    found = targets.at(torch.arange(4), saying(0.1, 0.2, 0.1, 0.2), torch.zeros(4, dtype=torch.bool))
    np.testing.assert_allclose(entropies(found), [0, 0, 0.6, 0.6], atol=1e-3)


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (6, 4), elements=st.floats(-30, 30, width=32)), st.floats(0.001, 1), st.floats(0, 0.9))
def test_whatever_the_model_answers_the_targets_are_distributions_without_the_forgotten_class(
    logits: np.ndarray, gain: float, follow: float
) -> None:
    targets = steering(gain=gain, follow=follow)
    rows = torch.tensor([0, 1, 2, 1, 0, 2])
    for noisy in (torch.zeros(6, dtype=torch.bool), torch.tensor([True, False] * 3)):
        for _ in range(5):
            for found in (targets.at(rows, torch.from_numpy(logits), noisy), targets.judged(rows, torch.from_numpy(logits))):
                assert torch.isfinite(found).all()
                torch.testing.assert_close(found.sum(dim=1), torch.ones(6), atol=1e-5, rtol=0)
                assert (found[:, 2] == 0).all()
    assert float(targets.offsets.abs().max()) <= FURTHEST
    assert all(torch.isfinite(value).all() for value in targets.state_dict().values())


def test_what_a_model_is_judged_by_has_no_offsets_and_changes_nothing() -> None:
    targets, both = steering(), torch.tensor([0, 1])
    before = targets.judged(both, saying(0.1, 0.2))
    np.testing.assert_allclose(entropies(before), [0.375, 0.525], atol=1e-4)
    targets.at(both, saying(0.1, 0.2), CLEAN[:2])
    state = {name: value.clone() for name, value in targets.state_dict().items()}
    assert torch.equal(targets.judged(both, saying(0.1, 0.2)), before)
    assert all(torch.equal(value, state[name]) for name, value in targets.state_dict().items())


def test_the_state_is_what_a_step_depends_on() -> None:
    """Another with the same state goes on in the same way."""
    first, both = steering(), torch.tensor([0, 1])
    for entropy in (0.1, 0.7, 0.2):
        first.at(both, saying(entropy, 0.4), CLEAN[:2])
    second = steering()
    second.load_state_dict(first.state_dict())
    assert torch.equal(*(targets.at(both, saying(0.3, 0.5), CLEAN[:2]) for targets in (first, second)))
    assert set(first.state_dict()) == {"done", "offsets", "errors", "seen", "groups"}, "what is given anew is in no checkpoint"


def test_places_by_hand() -> None:
    """Of group 0: .1, .3, .3 and .5. At .1 it is half of one in four, at .3 one and half of two. Of group 1 there is none."""
    others, groups = torch.tensor([0.3, 0.1, 0.5, 0.3, 0.2]), torch.tensor([0, 0, 0, 0, 2])
    found = places_among(torch.tensor([0.1, 0.3, 9.0, 0.3]), torch.tensor([0, 0, 0, 1]), others, groups)
    assert found.tolist() == [0.125, 0.5, 1.0, 0.5]


def test_between_two_columns_by_hand() -> None:
    table = torch.tensor([[0.0, 10.0, 30.0], [1.0, 1.0, 1.0]])
    rows = torch.tensor([0, 0, 0, 0, 0, 1, -1])
    columns = torch.tensor([-1.0, 0.0, 0.5, 1.25, 9.0, 0.3, 0.0])
    assert between(table, rows, columns).tolist() == [0, 0, 5, 15, 30, 1, 0]


def test_steering_asks_nothing_of_the_device() -> None:
    """On torch's meta device there are no values: to ask for one raises."""
    targets = steering().to("meta")
    with Crossings() as crossings:
        found = targets.at(
            torch.tensor([0, 1], device="meta"),
            torch.zeros(2, 4, device="meta"),
            torch.zeros(2, dtype=torch.bool, device="meta"),
        )
    assert found.shape == (2, 4)
    assert crossings.count == 0


def test_rank_labels_are_not_steered() -> None:
    made = replace(soft((math.nan,) * 3), targets=np.eye(4, dtype=np.float32)[[0, 3, 1]])
    assert steering(made).at(torch.arange(3), torch.zeros(3, 4), CLEAN).tolist() == np.eye(4)[[0, 3, 1]].tolist()
