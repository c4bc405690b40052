"""Judging how similar the concepts of a data set look: exemplars are chosen, a labeler is asked, its answers averaged.

Nothing here knows what is to be forgotten, so one judgement of a data set serves every request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.errors import MeguError
from megu.labeling.protocol import Identity, Labeler, Labeling, Question
from megu.params import STRICT, check

if TYPE_CHECKING:
    from megu.data.arrays import Dataset, Partition


@dataclass(frozen=True, kw_only=True)
class LabelingParams:
    """labeler: one of `LABELERS`. exemplars: images judged per class (the paper's n). references: images a class shown as known.

    temperature: of the softmax that turns the prototype labeler's cosines into confidences. image_size: pixels a side its network sees.
    seed: which exemplars; not the run's seed, so that a new seed does not ask the labeler again.
    """

    __pydantic_config__ = STRICT

    labeler: str = "prototype"
    exemplars: int = 20
    references: int = 40
    temperature: float = 0.1
    image_size: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        check("labeler", self.labeler, self.labeler in LABELERS, f"one of {', '.join(LABELERS)}")
        check("exemplars", self.exemplars, 1 <= self.exemplars <= 10_000, "between 1 and 10000")
        check("references", self.references, 1 <= self.references <= 10_000, "between 1 and 10000")
        check("temperature", self.temperature, 0 < self.temperature <= 100, "above 0 and at most 100")
        check("image_size", self.image_size, 32 <= self.image_size <= 512, "between 32 and 512")


def _prototype(params: LabelingParams) -> Labeler:
    from megu.labeling.prototype import PrototypeLabeler

    return PrototypeLabeler(params.temperature, params.image_size)


#: Adding a labeler is: write its file, add its entry.
LABELERS: dict[str, Callable[[LabelingParams], Labeler]] = {"prototype": _prototype}


def label(dataset: Dataset, params: LabelingParams) -> Labeling:
    """Choose exemplars and references from the training images, ask the labeler, and average (Eq 4-5).

    Raises `MeguError` when a class has too few images, or when a labeler abstained on all exemplars of a class.
    """
    exemplars, references = choose(dataset.train, dataset.classes, params)
    flat = exemplars.reshape(-1)
    classes = np.repeat(np.arange(dataset.num_classes), exemplars.shape[1])
    labeler = LABELERS[params.labeler](params)
    images = np.asarray(dataset.train.images[references.reshape(-1)])
    question = Question(
        concepts=dataset.classes,
        references=images.reshape(*references.shape, *images.shape[1:]),
        exemplars=np.asarray(dataset.train.images[flat]),
        exemplar_class=classes,
    )
    q = labeler.judge(question)
    return Labeling(similarity(q, classes, dataset.classes), q, classes, dataset.train.ids[flat], labeler.identity)


def similarity(q: NDArray[Any], exemplar_class: NDArray[Any], concepts: tuple[str, ...]) -> NDArray[np.float64]:
    """S (K, K): the mean answer for the exemplars of each class (Eq 5), abstentions (NaN) left out."""
    rows = np.zeros((len(concepts), len(concepts)))
    for k, name in enumerate(concepts):
        answers = q[exemplar_class == k]
        said = ~np.isnan(answers)
        if not said.any():
            raise MeguError(f"the labeler abstained on every exemplar of {name!r}", "use more exemplars, or another labeler")
        # A concept that was never answered for this class counts as not similar.
        rows[k] = np.where(said, answers, 0).sum(axis=0) / np.maximum(said.sum(axis=0), 1)
    return rows


def choose(train: Partition, concepts: tuple[str, ...], params: LabelingParams) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in the training images: exemplars (K, n) and references (K, P), disjoint, no image twice.

    Chosen by the hash of (seed, id), so they stay the same images when the data set grows or is reordered, but for those that
    a new image displaces.
    """
    wanted = params.exemplars + params.references
    key = str(params.seed).encode()
    chosen = np.empty((len(concepts), wanted), dtype=np.int64)
    for k, name in enumerate(concepts):
        positions = np.flatnonzero(train.labels == k)
        first = dict(zip(train.ids[positions].tolist()[::-1], positions.tolist()[::-1], strict=True))
        if len(first) < wanted:
            raise MeguError(
                f"labeling: class {name!r} has {len(first)} distinct training images, {wanted} are needed",
                "lower labeling.exemplars or labeling.references",
            )
        order = sorted(first, key=lambda identifier: blake2b(identifier, digest_size=16, key=key).digest())
        chosen[k] = [first[identifier] for identifier in order[:wanted]]
    return chosen[:, : params.exemplars], chosen[:, params.exemplars :]


__all__ = ["LABELERS", "Identity", "Labeler", "Labeling", "LabelingParams", "Question", "choose", "label", "similarity"]
