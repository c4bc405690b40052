"""Perturbing labels (MeGU, arXiv 2602.17088, Eq 7-8): what the forget samples should look like instead.

``R = T @ p`` with the target's entry of ``p`` set to 0. The paper's label is the ``floor(K tau)``-th largest entry of R; the soft
target is R itself, each row made as sure as a model that never saw the sample is expected to be (`megu.unlearning.labels.calibration`).
Where the paper leaves the choice open: no target contains a class that is being forgotten; R is computed from log-probabilities, so a
very confident model does not leave a row of zeros; the rank stays within the allowed classes; ties go to the smaller class index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megu.core.params import STRICT, check
from megu.evaluation import entropies
from megu.unlearning.labels.calibration import Calibration, log_odds, lowered, probabilities, ranks, struck_out
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.replacing import JUDGED, NEAREST, NONE, SOURCES, UNIFORM, replaced

Floats = NDArray[np.float64]

#: The sharpest exponent (`megu.unlearning.labels.sharpness`, whose torch the configuration need not load).
MOST = 100.0


@dataclass(frozen=True, kw_only=True)
class PerturbParams:
    """label: "soft" (the distribution R) or "rank" (the paper's single label); "nearest" (the largest entry of R) and "random" (any allowed
        class) are ablations.
    tau: the paper's rank as a share of K, in (0, 1].
    matrix: where the transition matrix T comes from (`megu.unlearning.labels.replacing.replaced`): the labeler ("judged"), or a baseline
        for it: "uniform", "shuffled", "overlap", "nearest", "none" (R = p).
    columns: which of T's columns make R: "answer" weights them by the original's answer p, so that the column of a class that leaves
        has no weight (Eq 7); "own" uses only the column of the sample's class.
    sharpness: exponent on R for the soft target; 1 is R itself, larger is surer. "auto" gives each sample its own exponent, from the
        calibration set (`megu.unlearning.labels.calibration`).
    """

    __pydantic_config__ = STRICT

    label: Literal["rank", "soft", "nearest", "random"] = "soft"
    tau: float = 0.3
    matrix: str = JUDGED
    columns: Literal["answer", "own"] = "answer"
    sharpness: Literal["auto"] | float = "auto"

    def __post_init__(self) -> None:
        check("tau", self.tau, 0 < self.tau <= 1, "above 0 and at most 1")
        known = f"one of {', '.join(SOURCES)} (true is now called judged, false is now called none)"
        check("matrix", self.matrix, self.matrix in SOURCES, known)
        rank, own, one = self.label == "rank", self.columns == "own", self.label in ("rank", "nearest")
        ordered = 'one that ranks more than one class where label is "rank"; with this one take label nearest or soft'
        check("matrix", self.matrix, not (rank and self.matrix == NEAREST), ordered)
        check("matrix", self.matrix, not (own and self.matrix == NONE), 'one that names other classes where columns is "own"')
        apart = 'one that tells other classes apart where columns is "own" and each sample has one label; take label soft'
        check("matrix", self.matrix, not (own and one and self.matrix == UNIFORM), apart)
        holds = self.sharpness == "auto" or 0 < self.sharpness <= MOST
        check("sharpness", self.sharpness, holds, f'"auto", or above 0 and at most {MOST:.0f}')


def perturb(
    transition: NDArray[Any],
    logits: NDArray[Any],
    true_labels: NDArray[Any],
    forgotten: Sequence[int],
    params: PerturbParams,
    calibration: Calibration | None = None,
    seed: int = 0,
    likeness: NDArray[Any] | None = None,
    overlap: NDArray[Any] | None = None,
) -> Perturbing:
    """Make the perturbing labels and targets of the forget set.

    Parameters
    ----------
    transition: (K, K), column-stochastic, T[l, k] = how much class k looks like l to the labeler.
    logits: (N, K), the frozen original's for the forget samples. true_labels: int (N,).
    forgotten: classes that leave the label space; empty when the class stays (sub-class and random requests). Then only each sample's
        own label is masked, except in soft targets, which give it the probability that a model that never saw the sample would.
    calibration: how sure soft targets should be, for ``sharpness: auto``; without one they are R itself.
    seed: determines the random labels, and which class a shuffled matrix has under which name.
    likeness: (N,), for a sample whose sub-class leaves, the share of the rest of its class in what that looks like, in [0, 1]; else NaN.
    overlap: (K, K), of the original's features, for ``matrix: overlap``.

    Raises ``ValueError`` when no class is left as a target.
    """
    classes = transition.shape[0]
    allowed = np.ones((len(logits), classes), dtype=bool)
    allowed[:, list(forgotten)] = False
    allowed[np.arange(len(logits)), true_labels] = False
    if not allowed.any(axis=1).all():
        raise ValueError(f"all {classes} classes are being forgotten: no perturbing label is left")
    taken_for = struck_out(logits, true_labels) if params.columns == "answer" else np.eye(classes)[true_labels]
    reasoning = reason(replaced(params.matrix, transition, overlap, forgotten, seed), taken_for, allowed)
    if params.label == "random":
        chance = np.random.default_rng(seed).random(allowed.shape)
        labels = np.where(allowed, chance, -1.0).argmax(axis=1).astype(np.int64)
    else:
        labels = rank_labels(reasoning, allowed, 0.0 if params.label == "nearest" else params.tau)
    nothing = np.full(len(labels), np.nan)
    if params.label != "soft":
        return Perturbing(labels, np.eye(classes, dtype=np.float32)[labels], reasoning, nothing)
    if params.sharpness != "auto":
        targets = _sharpened(reasoning, np.full(len(labels), params.sharpness)).astype(np.float32)
        return Perturbing(labels, targets, reasoning, nothing, params.sharpness)
    if calibration is None:
        return Perturbing(labels, reasoning.astype(np.float32), reasoning, nothing)
    return _calibrated(labels, reasoning, logits, true_labels, forgotten, calibration, likeness)


def _calibrated(
    labels: NDArray[np.int64],
    reasoning: Floats,
    logits: NDArray[Any],
    true_labels: NDArray[Any],
    forgotten: Sequence[int],
    calibration: Calibration,
    likeness: NDArray[Any] | None,
) -> Perturbing:
    """Return soft targets, each as sure as a model that never saw the sample is expected to be."""
    import torch

    from megu.unlearning.labels.sharpness import fitting_exponents

    true = np.asarray(true_labels)
    surest_first = ranks(entropies(struck_out(logits, true, forgotten)), true)
    wanted = calibration.unseen(true, surest_first)
    exponents = fitting_exponents(torch.from_numpy(reasoning).log(), torch.from_numpy(wanted)).numpy()
    rest = _sharpened(reasoning, exponents)
    stays = ~np.isin(true, list(forgotten))
    known = np.zeros(len(true))
    if stays.any():
        odds = calibration.held_out_odds(true[stays], log_odds(logits, true)[stays])
        known[stays] = probabilities(odds) if likeness is None else lowered(odds, np.asarray(likeness)[stays])
    targets = (1 - known[:, None]) * rest
    targets[np.arange(len(true)), true] += known
    return Perturbing(
        labels=labels,
        targets=targets.astype(np.float32),
        reasoning=reasoning,
        entropies=np.where(stays, np.nan, wanted),
        sharpness=float(np.round(np.median(exponents), 4)),
    )


def reason(transition: NDArray[Any], taken_for: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """Return R (Eq 7), float64 (N, K): 0 where not allowed, rows summing to 1.

    taken_for: (N, K), the weights of T's columns. Scaling p without its target entry changes R only by a factor, so p is normalised, from
    the logits: exact even where the target's probability rounds to 1. Where T gives no allowed class any weight, they share it equally.
    """
    found = np.where(allowed, taken_for @ np.asarray(transition, dtype=np.float64).T, 0.0)
    total = found.sum(axis=1, keepdims=True)
    even = allowed / allowed.sum(axis=1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1.0), even)


def rank_labels(reasoning: Floats, allowed: NDArray[np.bool_], tau: float) -> NDArray[np.int64]:
    """Return the ``floor(K tau)``-th largest allowed entry of R (Eq 8), int64 (N,); at least the first, at most the last allowed one."""
    classes = reasoning.shape[1]
    # 0.29 * 100 is 28.999999999999996 in binary; the intended rank is 29.
    rank = np.clip(int(np.floor(classes * tau + 1e-9)), 1, allowed.sum(axis=1))
    order = np.argsort(np.where(allowed, -reasoning, np.inf), axis=1, kind="stable")
    labels: NDArray[np.int64] = order[np.arange(len(order)), rank - 1].astype(np.int64)
    return labels


def _sharpened(distributions: Floats, exponents: Floats) -> Floats:
    """Apply `megu.unlearning.labels.sharpness.sharpened` to distributions (N, K) with ``exponents`` (N,)."""
    import torch

    from megu.unlearning.labels.sharpness import sharpened

    found: Floats = sharpened(torch.from_numpy(distributions).log(), torch.from_numpy(exponents)).numpy()
    return found
