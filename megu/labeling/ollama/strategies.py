"""Which questions are asked, and how answers become ``q(x, l)``. Pure functions, independent of any server.

K: classes; n: exemplars per class; m: candidates per class. Exemplars are numbered class by class, so exemplar ``i`` belongs to class
``i // n``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: The most choices of one ranked question; more are split into groups, and the classes named there are ranked once more.
GROUP = 100
#: An exemplar and a concept.
Pair = tuple[int, int]


def calls(strategy: str, classes: int, exemplars: int, candidates: int, sample: int, depth: int = 5) -> int:
    """Return the most questions that a strategy asks, including those that measure its sanity.

    pairwise: n·K², and ``sample`` repeated. ranked: n·K (more where the choices need several questions, `rankings`), ``sample``
    repeated, and the same number of True-or-False questions twice. screened: those of ranked, and n·K·m, in which the repeated ones
    replace the least plausible; with m >= K there is nothing to screen out, and it is pairwise.
    """
    judged = exemplars * classes
    again = repeats(classes, exemplars, sample)
    ranked = judged * rankings(classes - 1, depth)
    if strategy == "ranked":
        return ranked + 3 * again
    if strategy == "screened" and screens(classes, candidates):
        return ranked + judged * candidates
    return judged * classes + again


def rankings(choices: int, depth: int) -> int:
    """Return the most ranked questions for one exemplar: one per group of choices, and again among the classes that these name."""
    groups = -(-choices // GROUP)
    return 1 if groups <= 1 else groups + rankings(groups * depth, depth)


def screens(classes: int, candidates: int) -> bool:
    """Return whether a first pass can leave anything out."""
    return candidates < classes


def repeats(classes: int, exemplars: int, sample: int) -> int:
    """Return how many questions are repeated: at most one per class of the least plausible pairs is given up for them."""
    return min(sample, max(classes, 2))


def borda(order: Sequence[int], classes: int, depth: int) -> Floats:
    """Return the scores (K,) of one ranked answer: the first class gets depth / (depth + 1), the next (depth - 1) / (depth + 1), and so on,
    all below the 1 of the exemplar's own class; the rest get 0."""
    scores = np.zeros(classes)
    for place, concept in enumerate(order[:depth]):
        scores[concept] = (depth - place) / (depth + 1)
    return scores


def ranked_scores(answers: Mapping[int, Sequence[int] | None], classes: int, exemplars: int, depth: int) -> Floats:
    """Return (M, K): the scores of every exemplar's ranked answer; a row of NaN where it abstained."""
    rows = np.full((classes * exemplars, classes), np.nan)
    for exemplar, order in answers.items():
        if order is not None:
            rows[exemplar] = borda(order, classes, depth)
    return rows


def class_means(rows: Floats, exemplars: int) -> Floats:
    """Return (K, K): means over the exemplars of each class, NaN left out; 0 without any answer."""
    by_class = rows.reshape(-1, exemplars, rows.shape[1])
    said = ~np.isnan(by_class)
    means: Floats = np.where(said, by_class, 0).sum(axis=1) / np.maximum(said.sum(axis=1), 1)
    return means


def chosen_candidates(scores: Floats, candidates: int) -> list[list[int]]:
    """Return for each class k itself and up to m - 1 others, the most plausible first.

    scores: (K, K) mean ranked scores. A class counts when k's exemplars named it, or its exemplars named k; among equals the
    one that named k more often comes first. A class without either is not asked about.
    """
    found = []
    for k in range(len(scores)):
        order = sorted((-scores[k, l], -scores[l, k], l) for l in range(len(scores)) if l != k)  # noqa: E741 - the paper's l
        found.append([k, *(l for there, back, l in order if there or back)][:candidates])  # noqa: E741
    return found


def screened_pairs(candidates: Sequence[Sequence[int]], exemplars: int, budget: int) -> list[Pair]:
    """Return the pairs to ask about, at most ``budget``, the least plausible left out first."""
    deepest = max(len(entry) for entry in candidates)
    pairs = [
        (k * exemplars + number, entry[place])
        for place in range(deepest)
        for number in range(exemplars)
        for k, entry in enumerate(candidates)
        if place < len(entry)
    ]
    return pairs[: max(budget, 0)]


def every_pair(classes: int, exemplars: int) -> list[Pair]:
    """Return the paper's pairs: every exemplar with every concept."""
    return [(exemplar, concept) for concept in range(classes) for exemplar in range(classes * exemplars)]


def pair_scores(answers: Mapping[Pair, float | None], classes: int, exemplars: int) -> Floats:
    """Return q (M, K) of True-or-False answers; NaN where nothing was asked or answered."""
    q = np.full((classes * exemplars, classes), np.nan)
    for (exemplar, concept), value in answers.items():
        if value is not None:
            q[exemplar, concept] = value
    return q


def with_tail(q: Floats, ranked: Floats, candidates: Sequence[Sequence[int]], exemplars: int) -> Floats:
    """Fill in q for the classes that were screened out: their ranked score, scaled to lie below the class's least candidate.

    So they keep the order of the first pass (the paper's rank rule reads far down a column) without claiming
    anything that the second pass did not establish.
    """
    filled = q.copy()
    means = class_means(q, exemplars)
    for k, asked in enumerate(candidates):
        rows = slice(k * exemplars, (k + 1) * exemplars)
        out = np.setdiff1d(np.arange(q.shape[1]), asked)
        silent = np.asarray(np.isnan(q[rows][:, list(asked)]).all(axis=1))
        scores = ranked[rows][:, out] * means[k, list(asked)].min()
        # An exemplar without an answer in either pass tells nothing about the tail.
        filled[rows, out] = np.where(silent[:, None], scores, np.nan_to_num(scores))
    return filled


def ranked_q(ranked: Floats, exemplars: int) -> Floats:
    """Return q from ranked answers alone: the scores, and 1 for the exemplar's own class, which is never among the choices."""
    q = ranked.copy()
    own = np.arange(len(q)) // exemplars
    q[np.arange(len(q)), own] = np.where(np.isnan(q).any(axis=1), np.nan, 1.0)
    return q


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` of the items, spread evenly."""
    if len(items) <= count:
        return list(items)
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, count)]
