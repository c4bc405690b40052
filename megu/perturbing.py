"""Perturbing labels (MeGU, arXiv 2602.17088, Eq 7-8): what the forget samples are taught to look like instead.

``R = T @ p`` with the target's entry of ``p`` set to 0. The paper's label is the ``floor(K tau)``-th largest entry of R; the soft
target is R itself, sharpened. What the paper leaves open is settled here: no sample is ever taught a class that is being
forgotten; R is computed from log-probabilities, so a model that is sure of itself does not leave a row of zeros; the rank stays
within the allowed classes; ties go to the smaller class index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megu.evaluation import entropies
from megu.params import STRICT, check

Floats = NDArray[np.float64]

#: The sharpest exponent: beyond it a target is one-hot to float32 for any R of interest.
MOST = 100.0
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class PerturbParams:
    """label: "rank" is the paper's one label, "soft" the distribution R; "nearest" (the largest entry of R) and "random" (any
    allowed class) are ablations. tau: the paper's rank as a share of K, in (0, 1].

    sharpness: exponent on R for the soft target; 1 is R itself, larger is surer. "auto" fits it to the request, without a
    retrain: the targets get the mean entropy that a head fitted on the retain set alone has on the forget set (`megu.head`).
    """

    __pydantic_config__ = STRICT

    label: Literal["rank", "soft", "nearest", "random"] = "soft"
    tau: float = 0.3
    sharpness: Literal["auto"] | float = "auto"

    def __post_init__(self) -> None:
        check("tau", self.tau, 0 < self.tau <= 1, "above 0 and at most 1")
        holds = self.sharpness == "auto" or 0 < self.sharpness <= MOST
        check("sharpness", self.sharpness, holds, f'"auto", or above 0 and at most {MOST:.0f}')


@dataclass(frozen=True)
class Perturbing:
    """labels: int64 (N,), one label a sample: the paper's rank label, or the ablation's.

    targets: float32 (N, K), what the re-optimisation teaches; rows sum to 1.
    reasoning: float64 (N, K), R with the forgotten classes at 0, rows summing to 1. sharpness: the exponent that was used.
    entropy: what the soft targets' mean entropy was fitted to, in nats; None where nothing was fitted.
    """

    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    reasoning: Floats
    sharpness: float = 1.0
    entropy: float | None = None


def perturb(
    transition: NDArray[Any],
    logits: NDArray[Any],
    true_labels: NDArray[Any],
    forgotten: Sequence[int],
    params: PerturbParams,
    entropy: Callable[[NDArray[np.bool_]], float] | None = None,
    seed: int = 0,
) -> Perturbing:
    """The perturbing labels and targets of the forget set.

    Parameters
    ----------
    transition: (K, K), column-stochastic, T[l, k] = how much class k looks like l.
    logits: (N, K), the frozen original's for the forget samples. true_labels: int (N,).
    forgotten: classes that leave the label space; empty when the class stays (sub-class and random requests), and then each
        sample's own label is masked alone.
    entropy: for ``sharpness: auto``, called with the mask (N, K) of forbidden classes, gives the mean entropy that the soft
        targets shall have, in nats.
    seed: decides the random labels.

    Raises ``ValueError`` when no class is left to teach.
    """
    classes = transition.shape[0]
    allowed = np.ones((len(logits), classes), dtype=bool)
    allowed[:, list(forgotten)] = False
    allowed[np.arange(len(logits)), true_labels] = False
    sharpness, wanted = 1.0 if params.sharpness == "auto" else params.sharpness, None
    if not allowed.any(axis=1).all():
        raise ValueError(f"all {classes} classes are being forgotten: no perturbing label is left")
    reasoning = reason(transition, logits, true_labels, allowed)
    if params.label == "random":
        chance = np.random.default_rng(seed).random(allowed.shape)
        labels = np.where(allowed, chance, -1.0).argmax(axis=1).astype(np.int64)
    else:
        labels = rank_labels(reasoning, allowed, 0.0 if params.label == "nearest" else params.tau)
    if params.label != "soft":
        targets = np.eye(classes, dtype=np.float32)[labels]
    else:
        if params.sharpness == "auto":
            if entropy is None:
                raise ValueError("sharpness 'auto' needs the entropy that the targets shall have")
            wanted = entropy(~allowed)
            sharpness = fitting_sharpness(reasoning, wanted)
        targets = sharpened(reasoning, sharpness).astype(np.float32)
    return Perturbing(labels, targets, reasoning, sharpness, wanted)


def reason(transition: NDArray[Any], logits: NDArray[Any], true_labels: NDArray[Any], allowed: NDArray[np.bool_]) -> Floats:
    """R (Eq 7), float64 (N, K): 0 where not allowed, rows summing to 1.

    Scaling p without its target entry changes R by a factor alone, so it is taken from the logits with the target at -inf:
    exact even where the target's probability rounds to 1. Where T leaves no allowed class any weight, they share it equally.
    """
    rest = np.asarray(logits, dtype=np.float64).copy()
    rest[np.arange(len(rest)), true_labels] = -np.inf
    rest = np.exp(rest - rest.max(axis=1, keepdims=True))
    rest /= rest.sum(axis=1, keepdims=True)
    found = np.where(allowed, rest @ np.asarray(transition, dtype=np.float64).T, 0.0)
    total = found.sum(axis=1, keepdims=True)
    even = allowed / allowed.sum(axis=1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1.0), even)


def rank_labels(reasoning: Floats, allowed: NDArray[np.bool_], tau: float) -> NDArray[np.int64]:
    """Eq 8: the ``floor(K tau)``-th largest allowed entry of R, int64 (N,); at least the first, at most the last allowed one."""
    classes = reasoning.shape[1]
    # 0.29 * 100 is 28.999999999999996 in binary; the rank meant is 29.
    rank = np.clip(int(np.floor(classes * tau + 1e-9)), 1, allowed.sum(axis=1))
    order = np.argsort(np.where(allowed, -reasoning, np.inf), axis=1, kind="stable")
    labels: NDArray[np.int64] = order[np.arange(len(order)), rank - 1].astype(np.int64)
    return labels


def sharpened(distribution: Floats, exponent: float | Floats) -> Floats:
    """Each row to the power ``exponent`` (one for all, or (N, 1)), normalised again; entries that are 0 stay 0."""
    with np.errstate(divide="ignore"):
        logs = exponent * np.log(distribution)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def fitting_sharpness(reasoning: Floats, entropy: float) -> float:
    """The exponent in [1 / MOST, MOST] that gives the sharpened rows the mean ``entropy`` (nats), or comes nearest to it.

    To four digits.
    """
    found = fitting(lambda exponent: entropies(sharpened(reasoning, exponent)).mean() > entropy, MOST)
    return float(np.round(found, 4))


def fitting(too_flat: Callable[[Floats], Any], most: float, shape: tuple[int, ...] = ()) -> Floats:
    """The exponents in [1 / most, most] from which on ``too_flat`` no longer holds: float64 of ``shape``, each by itself.

    The entropy of a distribution falls as its exponent rises, so this is a bisection, on the logarithm.
    """
    low, high = np.full(shape, -np.log(most)), np.full(shape, np.log(most))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = too_flat(np.exp(middle))
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    found: Floats = np.exp((low + high) / 2)
    return found
