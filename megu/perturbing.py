"""Perturbing labels (MeGU, arXiv 2602.17088, Eq 7-8): what the forget samples are taught to look like instead.

``R = T @ p`` with the target's entry of ``p`` set to 0. The paper's label is the ``floor(K tau)``-th largest entry of R; the soft
target is R itself, sharpened. What the paper leaves open is settled here: no sample is ever taught a class that is being
forgotten; R is computed from log-probabilities, so a model that is sure of itself does not leave a row of zeros; the rank stays
within the allowed classes; ties go to the smaller class index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megu.params import STRICT, check

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PerturbParams:
    """label: "rank" is the paper's one label, "soft" the distribution R. tau: the paper's rank as a share of K, in (0, 1].

    sharpness: exponent on R for the soft target, above 0; 1 is R itself, larger is surer.
    """

    __pydantic_config__ = STRICT

    label: Literal["rank", "soft"] = "soft"
    tau: float = 0.3
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        check("tau", self.tau, 0 < self.tau <= 1, "above 0 and at most 1")
        check("sharpness", self.sharpness, 0 < self.sharpness <= 100, "above 0 and at most 100")


@dataclass(frozen=True)
class Perturbing:
    """labels: int64 (N,), the paper's rank labels. targets: float32 (N, K), what the re-optimisation teaches; rows sum to 1.

    reasoning: float64 (N, K), R with the forgotten classes at 0, rows summing to 1.
    """

    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    reasoning: Floats


def perturb(
    transition: NDArray[Any], logits: NDArray[Any], true_labels: NDArray[Any], forgotten: Sequence[int], params: PerturbParams
) -> Perturbing:
    """The perturbing labels and targets of the forget set.

    Parameters
    ----------
    transition: (K, K), column-stochastic, T[l, k] = how much class k looks like l.
    logits: (N, K), the frozen original's for the forget samples. true_labels: int (N,).
    forgotten: classes that leave the label space; empty when the class stays (sub-class and random requests), and then each
        sample's own label is masked alone.

    Raises ``ValueError`` when no class is left to teach.
    """
    classes = transition.shape[0]
    allowed = np.ones((len(logits), classes), dtype=bool)
    allowed[:, list(forgotten)] = False
    allowed[np.arange(len(logits)), true_labels] = False
    if not allowed.any(axis=1).all():
        raise ValueError(f"all {classes} classes are being forgotten: no perturbing label is left")
    reasoning = reason(transition, logits, true_labels, allowed)
    labels = rank_labels(reasoning, allowed, params.tau)
    if params.label == "rank":
        targets = np.eye(classes, dtype=np.float32)[labels]
    else:
        targets = sharpened(reasoning, params.sharpness).astype(np.float32)
    return Perturbing(labels, targets, reasoning)


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


def sharpened(distribution: Floats, exponent: float) -> Floats:
    """Each row to the power ``exponent``, normalised again; entries that are 0 stay 0."""
    with np.errstate(divide="ignore"):
        logs = exponent * np.log(distribution)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result
