"""RMIA, a per-sample attack with shadow models: are the forgotten samples still recognisable as members?

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks", ICML 2024. A population attack on entropy asks whether
the model is sure of itself on the forget set; this one asks for each sample whether the model is surer of it than models that never
saw it are, and so finds what the other misses (Hayes et al. 2024). We use RMIA rather than LiRA because LiRA fits a Gaussian to each sample's
shadow answers, which takes dozens of shadows; RMIA compares with their mean and is strong with two.

*Shadows* are true trainings by the original's recipe, each on a random half of the training set; they know nothing of any request, so
one set serves every method and every request. They come in pairs of complementary halves: each training sample is new to exactly
one of a pair.

*Populations.* "Members": the forgotten training samples. "Non-members": the test samples of the same classes (of the finer classes, where
the data set has some), whatever the request names: it may name a class and single samples of another together. Each class is a
population z of its own, consisting of its members and non-members: to a network that has lost a class, every sample of it is less
likely than any sample of another, so samples of different classes would be told apart by their class alone. Both groups are in z because
each is in turn ranked among the same z. The ranks of all classes then form one distribution for each group. Forgotten samples of a class
without test samples are left out.

*The score.* For each sample, with p the softmax probability of its true label:

    ratio(x) = p(x | model) / p(x),    p(x) = ((1 + a) mean of p(x | shadow) over the shadows that did not see x + 1 - a) / 2
    score(x) = the share of z with ratio(x) >= gamma ratio(z)

This is the paper's offline form for both populations: no shadow was trained on a test sample, so the online form would tell the two
apart by the formula alone. For the same reason each test sample counts as seen by one shadow of each pair, drawn at random: both
populations are compared with the same number of shadows.

*The right value* is the retrain's. It never saw either population, so its AUC is 0.5 and its TPR is the FPR, up to chance and to
whatever separates training from test images in the data set itself. The more the original memorised, the higher its values are above
these. An unlearned model above the retrain still knows its forget set; one below it has pushed the forgotten samples below the unseen
ones of their class, which gives them away as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.evaluation.attacks.roc import auc, tpr_at_fpr

if TYPE_CHECKING:
    from megu.data.splits import ForgetSplit
    from megu.evaluation.condensed import Condensed

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The paper's a for its offline form: how far p(x) moves from the shadows' answer towards 1, what a model that saw x would say.
OFFLINE = 0.3
#: The paper's gamma. At 1 the score is a rank among z: no two different ratios tie, and the ROC curve is that of the ratio itself.
GAMMA = 1.0


@dataclass(frozen=True)
class Shadow:
    """The answers of one shadow. train, test: log-probability of the true label, float64 (N,) and (M,).

    seen_train: bool (N,), what it was trained on. seen_test: bool (M,), what it is not asked about (see the module).
    """

    train: Floats
    test: Floats
    seen_train: Mask
    seen_test: Mask


@dataclass(frozen=True)
class Audit:
    """metrics: RMIA_AUC in [0, 1]; RMIA_TPR_1 and RMIA_TPR_01, the TPR at 1% and at 0.1% FPR, in percent.

    forget, test: the scores, float64, of the forgotten training samples and of the test samples they are compared with.
    """

    metrics: dict[str, float]
    forget: Floats
    test: Floats


def half(count: int, number: int, seed: int, population: str = "train") -> Mask:
    """Return which samples shadow ``number`` (from 0) is trained on, bool (count,). Shadows 2j and 2j + 1 get the two halves of one random
    split."""
    import torch

    from megu.core.seeds import generator

    order = torch.randperm(count, generator=generator(seed, "shadow", population, number // 2)).numpy()
    mask = np.zeros(count, dtype=bool)
    mask[order[: count // 2] if number % 2 == 0 else order[count // 2 :]] = True
    return mask


def true_log_probabilities(logits: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """Return log softmax of each row's true label, float64 (N,): finite even where the probability itself would be 0."""
    values = np.asarray(logits, dtype=np.float64)
    peak = values.max(axis=1)
    total = peak + np.log(np.exp(values - peak[:, None]).sum(axis=1))
    result: Floats = values[np.arange(len(values)), np.asarray(labels)] - total
    return result


def log_ratio(model: Floats, shadows: Floats, seen: Mask, a: float = OFFLINE) -> Floats:
    """Return log of p(x | model) / p(x), float64 (N,).

    model: log-probabilities (N,). shadows: (S, N). seen: bool (S, N), which shadow is not asked about which sample.
    Raises ``ValueError`` when a sample was seen by all shadows.
    """
    new = ~seen
    asked = new.sum(axis=0)
    if not asked.all():
        raise ValueError("every shadow has seen some of the samples: use complementary pairs")
    out = (np.exp(shadows) * new).sum(axis=0) / asked
    result: Floats = model - np.log(((1 + a) * out + 1 - a) / 2)
    return result


def rmia(ratio: Floats, population: Floats, gamma: float = GAMMA) -> Floats:
    """Return the share of the population z with ratio(x) >= gamma ratio(z), float64 (N,) in [0, 1]; both given as logarithms."""
    found = np.searchsorted(np.sort(population), ratio - np.log(gamma), side="right")
    return np.asarray(found / len(population), dtype=np.float64)


def audit(
    said: Condensed,
    train_labels: NDArray[Any],
    test_labels: NDArray[Any],
    split: ForgetSplit,
    shadows: Sequence[Shadow],
    fine: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Audit:
    """Attack one model (see the module). Labels (N,), (M,) of the whole training and test split.

    fine: the finer labels of both, where the data set has some. Without a test sample of the forgotten classes nothing can be said, and
    every metric is NaN.
    """
    train_kinds, test_kinds = (np.asarray(kinds) for kinds in fine or (train_labels, test_labels))
    forget = np.asarray(split.forget)
    asked = np.isin(train_kinds[forget], test_kinds)
    forget = forget[asked]
    same = np.flatnonzero(np.isin(test_kinds, train_kinds[forget]))
    if not len(same):
        nothing = np.empty(0)
        return Audit(dict.fromkeys(("RMIA_AUC", "RMIA_TPR_1", "RMIA_TPR_01"), float("nan")), nothing, nothing)
    members = log_ratio(
        true_log_probabilities(said.forget[asked], train_labels[forget]),
        np.stack([shadow.train[forget] for shadow in shadows]),
        np.stack([shadow.seen_train[forget] for shadow in shadows]),
    )
    others = log_ratio(
        true_log_probabilities(said.test[same], test_labels[same]),
        np.stack([shadow.test[same] for shadow in shadows]),
        np.stack([shadow.seen_test[same] for shadow in shadows]),
    )
    scores = np.empty(len(forget)), np.empty(len(same))
    for kind in np.unique(train_kinds[forget]):
        of_kind = train_kinds[forget] == kind, test_kinds[same] == kind
        population = np.concatenate([members[of_kind[0]], others[of_kind[1]]])
        for found, ratios, here in zip(scores, (members, others), of_kind, strict=True):
            found[here] = rmia(ratios[here], population)
    metrics = {
        "RMIA_AUC": auc(*scores),
        "RMIA_TPR_1": 100 * tpr_at_fpr(*scores, 0.01),
        "RMIA_TPR_01": 100 * tpr_at_fpr(*scores, 0.001),
    }
    return Audit(metrics, *scores)
