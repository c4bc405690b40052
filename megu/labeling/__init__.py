"""Measure how similar the concepts of a data set look: choose exemplars, ask a labeler and average its answers.

Nothing here depends on what is to be forgotten, so one labeling of a data set serves every request. The labelers are listed in
`megu.labeling.kinds`; this module depends on none of them, so a change to one does not invalidate the results of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.labeling.protocol import Identity, Judgement, Labeler, Labeling, Question

if TYPE_CHECKING:
    from megu.data.arrays import Dataset, Partition


def label(dataset: Dataset, labeler: Labeler, exemplars: int, references: int, seed: int) -> Labeling:
    """Choose exemplars and references from the training images, ask the labeler, and average (Eq 4-5).

    Raises `MeguError` when a class has too few images, or when a labeler abstained on all exemplars of a class.
    """
    question = ask_about(dataset, exemplars, references, seed)
    judged = labeler.judge(question)
    S = similarity(judged.q, question.exemplar_class, question.concepts)
    there, count = present(dataset), dataset.num_classes
    if len(there) < count:
        # A class whose images were erased is not compared with any other: it looks like itself and nothing else.
        whole = np.eye(count)
        whole[np.ix_(there, there)] = S
        shape = (len(question.exemplar_ids), count)
        q, abstained = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        q[:, there], abstained[:, there] = judged.q, judged.abstained
        classes = there[question.exemplar_class]
        return Labeling(whole, q, abstained, classes, question.exemplar_ids, labeler.identity, judged.record)
    ids, classes = question.exemplar_ids, question.exemplar_class
    return Labeling(S, judged.q, judged.abstained, classes, ids, labeler.identity, judged.record)


def present(dataset: Dataset) -> NDArray[np.int64]:
    """Return the classes that have training images; after an erasure a class may have none."""
    return np.unique(np.asarray(dataset.train.labels, dtype=np.int64))


def ask_about(dataset: Dataset, exemplars: int, references: int, seed: int) -> Question:
    """Return the question about a data set: exemplars and references of the classes that have images."""
    there = present(dataset)
    chosen, known = choose(dataset.train, dataset.classes, exemplars, references, seed, there.tolist())
    flat = chosen.reshape(-1)
    images = np.asarray(dataset.train.images[known.reshape(-1)])
    return Question(
        concepts=tuple(dataset.classes[k] for k in there),
        references=images.reshape(*known.shape, *images.shape[1:]),
        exemplars=np.asarray(dataset.train.images[flat]),
        exemplar_class=np.repeat(np.arange(len(there)), exemplars),
        exemplar_ids=dataset.train.ids[flat],
    )


def similarity(q: NDArray[Any], exemplar_class: NDArray[Any], concepts: tuple[str, ...]) -> NDArray[np.float64]:
    """Return S (K, K): the mean answer for the exemplars of each class (Eq 5), abstentions (NaN) left out."""
    rows = np.zeros((len(concepts), len(concepts)))
    for k, name in enumerate(concepts):
        answers = q[exemplar_class == k]
        said = ~np.isnan(answers)
        if not said.any():
            raise MeguError(f"the labeler abstained on every exemplar of {name!r}", "use more exemplars, or another labeler")
        # A concept without any answer for this class counts as not similar.
        rows[k] = np.where(said, answers, 0).sum(axis=0) / np.maximum(said.sum(axis=0), 1)
    return rows


def choose(
    train: Partition,
    concepts: tuple[str, ...],
    exemplars: int,
    references: int,
    seed: int,
    classes: Sequence[int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose positions in the training images: exemplars (K, n) and references (K, P), disjoint, no image twice; of all classes, or some.

    They are chosen by the hash of (seed, id), so they stay the same images when the data set grows or is reordered, except for those
    that a new image displaces.
    """
    wanted = exemplars + references
    key = str(seed).encode()
    asked = range(len(concepts)) if classes is None else classes
    chosen = np.empty((len(asked), wanted), dtype=np.int64)
    for row, k in enumerate(asked):
        name, positions = concepts[k], np.flatnonzero(train.labels == k)
        first = dict(zip(train.ids[positions].tolist()[::-1], positions.tolist()[::-1], strict=True))
        if len(first) < wanted:
            raise MeguError(
                f"labeling: class {name!r} has {len(first)} distinct training images, {wanted} are needed",
                "lower labeling.exemplars or labeling.references",
            )
        order = sorted(first, key=lambda identifier: blake2b(identifier, digest_size=16, key=key).digest())
        chosen[row] = [first[identifier] for identifier in order[:wanted]]
    return chosen[:, :exemplars], chosen[:, exemplars:]


__all__ = ["Identity", "Judgement", "Labeler", "Labeling", "Question", "ask_about", "choose", "label", "similarity"]
