"""A cheap guess at what a retrained model would say of the forget set: a new head on the frozen features, fitted without it.

The features still know the forget set, the head does not. It takes seconds, and tells how sure a model may be of images that it
was never shown: a forgotten Sneaker is still a shoe, a forgotten Bag is like nothing else. (METHOD, leads, 3; ours, not the paper's.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from megu.evaluation import entropies, softmax

#: Retained samples that the head is fitted on; more change the entropy in the third digit.
SAMPLES = 10_000
_PENALTY = 1e-4
_ITERATIONS = 60


def retained_entropy(
    retain_features: NDArray[Any], retain_labels: NDArray[Any], forget_features: NDArray[Any], forbidden: NDArray[np.bool_]
) -> float:
    """Mean entropy, in nats, of a head fitted on the retain set, asked about the forget set.

    retain_features: (N, F); retain_labels: int (N,). forget_features: (M, F). forbidden: bool (M, K), classes that a sample
    may not be given (its own, and those being forgotten).
    """
    chosen = np.linspace(0, len(retain_labels) - 1, min(SAMPLES, len(retain_labels))).astype(np.int64)
    features = np.asarray(retain_features[chosen], dtype=np.float32)
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    known = torch.from_numpy((features - centre) / scale)
    asked = torch.from_numpy(((forget_features - centre) / scale).astype(np.float32))
    weight, bias = fit(known, torch.from_numpy(np.asarray(retain_labels[chosen])), forbidden.shape[1])
    logits = (asked @ weight + bias).numpy().astype(np.float64)
    logits[forbidden] = -np.inf
    return float(entropies(softmax(logits)).mean())


def fit(features: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression with a small L2 penalty, by L-BFGS from zero: weight (F, K) and bias (K,)."""
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(features @ weight + bias, labels) + _PENALTY * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
