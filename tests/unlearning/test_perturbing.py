from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.evaluation import entropies
from megu.unlearning.labels.calibration import Calibration
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams, perturb, rank_labels
from megu.unlearning.labels.sharpness import fitting_exponents

RANK = PerturbParams(label="rank", tau=0.5)
SOFT = PerturbParams(label="soft", sharpness=1.0)

#: Column k describes class k.
T = np.array(
    [
        [0.7, 0.1, 0.2, 0.0],
        [0.1, 0.6, 0.0, 0.1],
        [0.2, 0.2, 0.5, 0.3],
        [0.0, 0.1, 0.3, 0.6],
    ]
)


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities]))


def one(row: np.ndarray, forgotten: tuple[int, ...], true: int, params: PerturbParams) -> Perturbing:
    return perturb(T, row, np.array([true]), forgotten, params)


def test_r_by_hand() -> None:
    """p = (.7, .1, .1, .1), target 0: R = .1 (T[:,1] + T[:,2] + T[:,3]) = .1 (.3, .7, 1.0, 1.0); R[0] masked, normalised by .27."""
    found = one(logits(0.7, 0.1, 0.1, 0.1), (0,), 0, SOFT)
    np.testing.assert_allclose(found.reasoning, [[0, 0.07 / 0.27, 0.1 / 0.27, 0.1 / 0.27]], atol=1e-12)
    np.testing.assert_allclose(found.targets, found.reasoning, atol=1e-7)


def test_the_rank_label_by_hand() -> None:
    """p = (0, .5, .3, .2), target 0: R = .5 T[:,1] + .3 T[:,2] + .2 T[:,3] = (.11, .32, .31, .26); K tau = 2: the second largest."""
    assert one(logits(1e-9, 0.5, 0.3, 0.2), (0,), 0, RANK).labels.tolist() == [2]
    assert one(logits(1e-9, 0.5, 0.3, 0.2), (0,), 0, PerturbParams(label="rank", tau=0.25)).labels.tolist() == [1]
    assert one(logits(1e-9, 0.5, 0.3, 0.2), (0,), 0, PerturbParams(label="rank", tau=0.75)).labels.tolist() == [3]


def test_the_target_is_never_taught_though_r_has_it_on_top() -> None:
    """p = (.1, .9, 0, 0), target 1, T[:,0] = (.1, .9, …): R is largest at the target itself."""
    matrix = np.array([[0.1, 0.2, 0.3], [0.9, 0.5, 0.3], [0.0, 0.3, 0.4]])
    row = np.log(np.array([[0.1, 0.9, 1e-12]]))
    found = perturb(matrix, row, np.array([1]), (1,), PerturbParams(label="rank", tau=0.34))
    assert found.labels.tolist() == [0]
    assert found.reasoning[0, 1] == 0


def test_every_class_that_is_being_forgotten_is_masked() -> None:
    found = perturb(T, np.zeros((2, 4)), np.array([2, 3]), (2, 3), SOFT)
    assert (found.targets[:, [2, 3]] == 0).all()
    assert set(found.labels) <= {0, 1}


def test_subclass_and_random_requests_mask_the_samples_own_label_alone() -> None:
    found = perturb(T, np.zeros((2, 4)), np.array([0, 3]), (), SOFT)
    assert (found.targets == 0).tolist() == [[True, False, False, False], [False, False, False, True]]


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e6])
def test_a_memorised_sample_does_not_underflow(scale: float) -> None:
    """p rounds to one-hot; what is left of it must still order the others: class 1 is likelier than 2 and 3 by far."""
    found = one(np.array([[scale, 0.0, -50.0, -60.0]]), (0,), 0, SOFT)
    expected = np.array([0, *(T[1:, 1] / T[1:, 1].sum())])
    np.testing.assert_allclose(found.targets, expected[None], atol=1e-6)


def test_where_t_leaves_nothing_the_allowed_classes_share() -> None:
    found = perturb(np.eye(3), np.log(np.array([[0.5, 0.5, 1e-300]])), np.array([0]), (0, 1), SOFT)
    np.testing.assert_allclose(found.targets, [[0, 0, 1]])


@pytest.mark.parametrize(("tau", "expected"), [(0.01, 3), (0.25, 3), (0.5, 2), (0.75, 1), (1.0, 1)])
def test_the_rank_stays_within_the_allowed_classes(tau: float, expected: int) -> None:
    reasoning, allowed = np.array([[0.0, 0.1, 0.3, 0.6]]), np.array([[False, True, True, True]])
    assert rank_labels(reasoning, allowed, tau).tolist() == [expected]


def test_ties_go_to_the_smaller_class() -> None:
    reasoning, allowed = np.array([[0.25, 0.25, 0.25, 0.25]]), np.array([[True, False, True, True]])
    assert [rank_labels(reasoning, allowed, tau).item() for tau in (0.25, 0.5, 0.75)] == [0, 2, 3]


def test_the_rank_that_is_meant_is_taken() -> None:
    """.29 * 100 is 28.999… in binary; the paper's rank 30 of 100 is tau .3."""
    reasoning = np.linspace(1, 0.01, 100)[None]
    allowed = np.ones((1, 100), dtype=bool)
    assert rank_labels(reasoning, allowed, 0.29).item() == 28
    assert rank_labels(reasoning, allowed, 0.3).item() == 29


def test_the_nearest_label_by_hand() -> None:
    """The largest entry of R = (.11, .32, .31, .26) that is allowed, whatever tau is."""
    nearest = PerturbParams(label="nearest", tau=0.75)
    found = one(logits(1e-9, 0.5, 0.3, 0.2), (0,), 0, nearest)
    assert found.labels.tolist() == [1]
    assert found.targets.tolist() == [[0, 1, 0, 0]]
    assert one(logits(1e-9, 0.5, 0.3, 0.2), (0, 1), 0, nearest).labels.tolist() == [2]


def test_random_labels_are_even_over_what_is_allowed_and_decided_by_the_seed() -> None:
    rows, true = np.zeros((3000, 4)), np.arange(3000) % 2
    random = PerturbParams(label="random")
    first, again, other = (perturb(T, rows, true, (2,), random, seed=seed) for seed in (0, 0, 1))
    assert (first.labels == again.labels).all()
    assert (first.labels != other.labels).any()
    assert (first.targets.argmax(axis=1) == first.labels).all()
    for own in (0, 1):
        shares = np.bincount(first.labels[true == own], minlength=4) / 1500
        np.testing.assert_allclose(shares, [0.5 * (own == 1), 0.5 * (own == 0), 0, 0.5], atol=0.05)


def test_no_class_left_is_said() -> None:
    with pytest.raises(ValueError, match="no perturbing label is left"):
        perturb(T, np.zeros((1, 4)), np.array([0]), (0, 1, 2, 3), SOFT)


@settings(max_examples=60)
@given(
    hnp.arrays(np.float64, (5, 6), elements=st.floats(-40, 40)),
    hnp.arrays(np.float64, (6, 6), elements=st.floats(0.001, 1)),
    st.sets(st.integers(0, 5), max_size=4),
    st.floats(-1000, 1000),
)
def test_invariants(rows: np.ndarray, matrix: np.ndarray, forgotten: set[int], shift: float) -> None:
    matrix = matrix / matrix.sum(axis=0)
    true = np.arange(5)
    ablations = (PerturbParams(label="nearest"), PerturbParams(label="random"))
    for params in (SOFT, PerturbParams(label="soft", sharpness=3.0), RANK, *ablations):
        found = perturb(matrix, rows, true, sorted(forgotten), params)
        np.testing.assert_allclose(found.targets.sum(axis=1), 1, atol=1e-5)
        assert (found.targets[:, sorted(forgotten)] == 0).all()
        assert (found.targets[np.arange(5), true] == 0).all()
        assert not set(found.labels) & forgotten
        assert (found.labels != true).all()
        again = perturb(matrix, rows + shift, true, sorted(forgotten), params)
        np.testing.assert_allclose(again.reasoning, found.reasoning, atol=1e-9)


def test_without_the_matrix_r_is_the_answer_itself() -> None:
    """p = (.7, .1, .1, .1) and (.4, .1, .2, .3) without the first: thirds, and sixths of 1, 2, 3; whatever T is."""
    bare = PerturbParams(label="soft", sharpness=1.0, matrix="none")
    rows = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.1, 0.2, 0.3]]))
    found = perturb(T, rows, np.zeros(2, dtype=int), (0,), bare)
    np.testing.assert_allclose(found.reasoning, [[0, 1 / 3, 1 / 3, 1 / 3], [0, 1 / 6, 2 / 6, 3 / 6]], atol=1e-12)
    assert not np.allclose(perturb(T, rows, np.zeros(2, dtype=int), (0,), SOFT).reasoning, found.reasoning)


def test_the_column_of_a_class_that_leaves_has_no_weight() -> None:
    """Of what the labeler says of the forgotten class itself, nothing is in R (Eq 7); with ``columns: own`` nothing else is."""
    rows, true = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.1, 0.2, 0.3]])), np.zeros(2, dtype=int)
    other = T.copy()
    other[:, 0] = (0.0, 0.0, 0.1, 0.9)
    by_answer = [perturb(matrix, rows, true, (0,), SOFT).reasoning for matrix in (T, other)]
    assert (by_answer[0] == by_answer[1]).all()
    own = PerturbParams(label="soft", sharpness=1.0, columns="own")
    np.testing.assert_allclose(perturb(T, rows, true, (0,), own).reasoning, [[0, 1 / 3, 2 / 3, 0]] * 2)
    np.testing.assert_allclose(perturb(other, rows, true, (0,), own).reasoning, [[0, 0, 0.1, 0.9]] * 2)


def test_each_source_of_the_matrix_decides_the_labels() -> None:
    """p = (0, .5, .3, .2), target 0. uniform: .6, .5 and .6 stay, the rest is shared by three. nearest: 1 and 3 are nearest to 2, 2 to 3.
    overlap: of 1 the features are its own, but for those of 0; of 2 .8 its own and .2 those of 3, and the other way round."""
    row, overlap = logits(1e-9, 0.5, 0.3, 0.2), np.eye(4)
    overlap[0, 1] = overlap[1, 0] = 1.0
    overlap[2, 3] = overlap[3, 2] = 0.25

    def made(source: str, label: str = "soft", seed: int = 0) -> Perturbing:
        params = PerturbParams(label=label, sharpness=1.0, matrix=source, tau=0.5)  # type: ignore[arg-type]
        return perturb(T, row, np.array([0]), (0,), params, seed=seed, overlap=overlap)

    assert made("judged", "rank").labels.tolist() == [2]
    assert made("nearest", "nearest").labels.tolist() == [2]
    shared = np.array([[0, 1.13, 0.73, 0.71]]) / 2.57  # R1 = .5 (.6) + .3 (.5 / 3) + .2 (.4 / 3), times 3
    np.testing.assert_allclose(made("uniform").targets, shared, atol=1e-6)
    np.testing.assert_allclose(made("nearest").targets, [[0, 0, 0.7, 0.3]], atol=1e-6)
    np.testing.assert_allclose(made("overlap").targets, np.array([[0, 0.25, 0.28, 0.22]]) / 0.75, atol=1e-6)
    assert len({made("shuffled", seed=seed).targets.tobytes() for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"matrix": "true"}, "true is now called judged"),
        ({"matrix": "false"}, "false is now called none"),
        ({"matrix": "Judged"}, "one of judged, uniform, shuffled, overlap, nearest, none"),
        ({"matrix": "nearest", "label": "rank"}, "take label nearest or soft"),
        ({"matrix": "none", "columns": "own"}, "one that names other classes"),
        ({"matrix": "uniform", "columns": "own", "label": "rank"}, "take label soft"),
        ({"matrix": "uniform", "columns": "own", "label": "nearest"}, "take label soft"),
    ],
)
def test_a_matrix_without_meaning_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PerturbParams(**settings)  # type: ignore[arg-type]


AUTO = PerturbParams(label="soft", sharpness="auto")


def calibrated(rows: np.ndarray, true: np.ndarray, forgotten: tuple[int, ...], seed: int = 0) -> tuple[Perturbing, Calibration]:
    """The targets of ``rows``, which are a part of the training set, by 40 held-out images that the original is less sure of."""
    random, classes = np.random.default_rng(seed), rows.shape[1]
    held, train = np.arange(40) % classes, np.concatenate([true, np.arange(60) % classes])
    said = 3 * np.eye(classes)[held] + random.normal(size=(40, classes))
    trained = np.concatenate([rows, 9 * np.eye(classes)[train[len(rows) :]] + random.normal(size=(60, classes))])
    calibration = Calibration.of(said, held, trained, train, forgotten)
    assert calibration is not None
    matrix = T if classes == len(T) else np.full((classes, classes), 1 / classes)
    return perturb(matrix, rows, true, forgotten, AUTO, calibration), calibration


def test_a_class_that_leaves_has_the_entropies_of_what_the_original_does_not_recognise() -> None:
    """Each target has its own, spread as the calibration's are, and the surest sample the least."""
    rows = np.random.default_rng(1).normal(size=(50, 4)) + np.array([8, 0, 0, 0])
    found, calibration = calibrated(rows, np.zeros(50, dtype=int), (0,))
    reached = entropies(found.targets.astype(np.float64))
    np.testing.assert_allclose(reached, found.entropies, atol=1e-3)
    levels = (np.arange(50) + 0.5) / 50
    np.testing.assert_allclose(np.sort(found.entropies), calibration.unseen(np.zeros(50, dtype=int), levels), atol=1e-9)
    assert np.ptp(reached) > 0.3
    others = np.exp(rows[:, 1:]) / np.exp(rows[:, 1:]).sum(axis=1, keepdims=True)
    assert (np.argsort(entropies(others)) == np.argsort(found.entropies, kind="stable")).all()
    exponents = fitting_exponents(torch.from_numpy(found.reasoning).log(), torch.from_numpy(found.entropies))
    assert found.sharpness == pytest.approx(np.median(exponents.numpy()), abs=1e-4)


def test_a_class_that_stays_has_the_probability_of_a_held_out_image_of_the_same_rank() -> None:
    rows, true = 9 * np.eye(4)[np.arange(8) % 4] + np.random.default_rng(1).normal(size=(8, 4)), np.arange(8) % 4
    found, calibration = calibrated(rows, true, ())
    others = np.delete(np.arange(4), 0)
    odds = rows[0, 0] - np.log(np.exp(rows[0, others]).sum())
    held = calibration.held_out_odds(np.array([0]), np.array([odds]))[0]
    assert found.targets[0, 0] == pytest.approx(1 / (1 + np.exp(-held)), abs=1e-6)
    assert held < odds, "a held-out image is known less well than one that was trained on"
    assert np.isnan(found.entropies).all(), "there is none to steer by"
    without = np.delete(found.targets[0], 0).astype(np.float64)
    shape = np.delete(found.reasoning[0], 0)
    assert (np.argsort(without) == np.argsort(shape)).all(), "the rest of it is R, made surer or less sure"


def test_of_a_mixed_request_each_sample_is_taught_as_its_class_goes_or_stays() -> None:
    rows, true = np.zeros((4, 4)), np.array([0, 1, 0, 2])
    found, _ = calibrated(rows, true, (0,))
    assert np.isfinite(found.entropies).tolist() == [True, False, True, False]
    assert (found.targets[:, 0] == 0).all()
    assert (found.targets[[1, 3], [1, 2]] > 0).all()


@settings(max_examples=40)
@given(
    hnp.arrays(np.float64, (6, 5), elements=st.floats(-1e4, 1e4)),
    hnp.arrays(np.int64, 6, elements=st.integers(0, 4)),
    st.sets(st.integers(0, 4), max_size=3),
)
def test_what_calibrated_targets_always_are(rows: np.ndarray, true: np.ndarray, forgotten: set[int]) -> None:
    left = tuple(sorted(forgotten))
    found, calibration = calibrated(rows, true, left)
    assert np.isfinite(found.targets).all()
    np.testing.assert_allclose(found.targets.sum(axis=1), 1, atol=1e-5)
    assert (found.targets[:, list(left)] == 0).all()
    assert (np.isfinite(found.entropies) == np.isin(true, left)).all()
    again = perturb(np.full((5, 5), 0.2), rows, true, left, AUTO, calibration, seed=1)
    assert (again.targets == found.targets).all(), "no seed decides soft targets"


def test_without_calibration_images_the_targets_are_as_sure_as_the_original() -> None:
    found = one(logits(0.7, 0.1, 0.1, 0.1), (0,), 0, AUTO)
    np.testing.assert_allclose(found.targets, found.reasoning, atol=1e-7)
    assert np.isnan(found.entropies).all()


@pytest.mark.parametrize("params", [SOFT, RANK, PerturbParams(label="nearest"), PerturbParams(label="random")])
def test_what_is_not_fitted_is_not_calibrated(params: PerturbParams) -> None:
    """A given sharpness and one label a sample are what they are with a calibration, too."""
    rows, true = np.random.default_rng(1).normal(size=(8, 4)), np.arange(8) % 2
    _, calibration = calibrated(rows, true, (0,))
    plain, beside = (perturb(T, rows, true, (0,), params, given_to) for given_to in (None, calibration))
    assert (plain.targets == beside.targets).all()
    assert np.isnan(beside.entropies).all()
