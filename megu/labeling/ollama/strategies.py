"""Which questions are asked, and how answers become ``q(x, l)``. Pure functions: nothing here knows a server.

K: classes; n: exemplars per class; m: candidates per class. Exemplars are numbered class by class, so exemplar ``i`` is of class
``i // n``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Choices of one ranked question, at most; more are asked about in groups, and the classes named there once more.
GROUP = 100
#: An exemplar and a concept.
Pair = tuple[int, int]


def calls(strategy: str, classes: int, exemplars: int, candidates: int, sample: int, depth: int = 5) -> int:
    """How many questions a strategy asks, at most, those that measure its sanity among them.

    pairwise: n·K², and ``sample`` again. ranked: n·K (more where the choices take several questions, `rankings`), ``sample`` again, and as
    many True-or-False questions twice. screened: what ranked takes, and n·K·m, in which the repeated ones take the place of the least
    plausible; from m >= K on there is nothing to screen out, and it is pairwise.
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
    """How many ranked questions one exemplar takes, at most: one for each group of choices, and so on among the classes that these name."""
    groups = -(-choices // GROUP)
    return 1 if groups <= 1 else groups + rankings(groups * depth, depth)


def screens(classes: int, candidates: int) -> bool:
    """Whether a first pass can leave anything out."""
    return candidates < classes


def repeats(classes: int, exemplars: int, sample: int) -> int:
    """How many questions are asked again: at most one a class of the least plausible pairs is given up for them."""
    return min(sample, max(classes, 2))


def borda(order: Sequence[int], classes: int, depth: int) -> Floats:
    """Scores (K,) of one ranked answer: the first named gets depth / (depth + 1), the next (depth - 1) / (depth + 1), and so on, all below
    the 1 of the exemplar's own class; the rest 0."""
    scores = np.zeros(classes)
    for place, concept in enumerate(order[:depth]):
        scores[concept] = (depth - place) / (depth + 1)
    return scores


def ranked_scores(answers: Mapping[int, Sequence[int] | None], classes: int, exemplars: int, depth: int) -> Floats:
    """(M, K): the scores of every exemplar's ranked answer; a row of NaN where it abstained."""
    rows = np.full((classes * exemplars, classes), np.nan)
    for exemplar, order in answers.items():
        if order is not None:
            rows[exemplar] = borda(order, classes, depth)
    return rows


def class_means(rows: Floats, exemplars: int) -> Floats:
    """(K, K): means over the exemplars of each class, NaN left out; 0 where nothing was said."""
    by_class = rows.reshape(-1, exemplars, rows.shape[1])
    said = ~np.isnan(by_class)
    means: Floats = np.where(said, by_class, 0).sum(axis=1) / np.maximum(said.sum(axis=1), 1)
    return means


def chosen_candidates(scores: Floats, candidates: int) -> list[list[int]]:
    """For each class itself and up to m - 1 others, the most plausible first.

    scores: (K, K) mean ranked scores. A class counts when k's exemplars named it, or its exemplars named k; among equals the
    one that named k more often comes first. One that neither named is not asked about.
    """
    found = []
    for k in range(len(scores)):
        order = sorted((-scores[k, l], -scores[l, k], l) for l in range(len(scores)) if l != k)  # noqa: E741 - the paper's l
        found.append([k, *(l for there, back, l in order if there or back)][:candidates])  # noqa: E741
    return found


def screened_pairs(candidates: Sequence[Sequence[int]], exemplars: int, budget: int) -> list[Pair]:
    """The pairs to ask about, at most ``budget``, the least plausible left out first."""
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
    """The paper's: every exemplar with every concept."""
    return [(exemplar, concept) for concept in range(classes) for exemplar in range(classes * exemplars)]


def pair_scores(answers: Mapping[Pair, float | None], classes: int, exemplars: int) -> Floats:
    """q (M, K) of True-or-False answers; NaN where nothing was asked or said."""
    q = np.full((classes * exemplars, classes), np.nan)
    for (exemplar, concept), value in answers.items():
        if value is not None:
            q[exemplar, concept] = value
    return q


def with_tail(q: Floats, ranked: Floats, candidates: Sequence[Sequence[int]], exemplars: int) -> Floats:
    """q with the classes that were screened out filled in: their ranked score, scaled to lie below the class's least candidate.

    So they keep the order that the first pass gave them (the paper's rank rule reads far down a column) without a claim
    that the second pass never made.
    """
    filled = q.copy()
    means = class_means(q, exemplars)
    for k, asked in enumerate(candidates):
        rows = slice(k * exemplars, (k + 1) * exemplars)
        out = np.setdiff1d(np.arange(q.shape[1]), asked)
        silent = np.asarray(np.isnan(q[rows][:, list(asked)]).all(axis=1))
        scores = ranked[rows][:, out] * means[k, list(asked)].min()
        # An exemplar that said nothing in either pass says nothing about the tail.
        filled[rows, out] = np.where(silent[:, None], scores, np.nan_to_num(scores))
    return filled


def ranked_q(ranked: Floats, exemplars: int) -> Floats:
    """q of ranked answers alone: the scores, and 1 for the exemplar's own class, which is never among the choices."""
    q = ranked.copy()
    own = np.arange(len(q)) // exemplars
    q[np.arange(len(q)), own] = np.where(np.isnan(q).any(axis=1), np.nan, 1.0)
    return q


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the items, evenly through them."""
    if len(items) <= count:
        return list(items)
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, count)]
