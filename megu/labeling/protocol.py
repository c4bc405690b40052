"""The protocol of all labelers: what they are asked and what they answer (MeGU, arXiv 2602.17088, Eq 4-5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Question:
    """Everything that a labeler may look at.

    concepts: the K class names. references: uint8 (K, P, H, W, C), images known to show each concept.
    exemplars: uint8 (M, H, W, C), the images to compare; exemplar_class: int64 (M,); exemplar_ids: bytes "S32" (M,), their content hashes.
    No exemplar is among the references.
    """

    concepts: tuple[str, ...]
    references: Images
    exemplars: Images
    exemplar_class: NDArray[np.int64]
    exemplar_ids: NDArray[np.bytes_]


@dataclass(frozen=True)
class Judgement:
    """A labeler's answers. q: float64 (M, K), ``q(x, l)`` in [0, 1], NaN without an answer. abstained: bool (M, K), where it was asked
    and gave no usable answer. record: how it was asked and what it cost, as JSON; the same for the same answers.
    """

    q: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """Which labeler it was: enough to tell whether two results may be compared.

    kind: what it really is, in words ("prototype labeler, not an LLM"). digest: SHA-256 of the weights, or the model's own digest.
    """

    name: str
    kind: str
    version: str
    digest: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "kind": self.kind, "version": self.version, "digest": self.digest}


class Labeler(Protocol):
    """Scores how much each exemplar looks like each concept."""

    @property
    def identity(self) -> Identity: ...

    def judge(self, question: Question) -> Judgement: ...


@dataclass(frozen=True)
class Kind:
    """A kind of labeler, registered by name in `megu.labeling.kinds`.

    params: a frozen dataclass with a default for every field; ``exemplars``, ``references`` and ``seed`` are among them. make: builds
    the labeler from them and the device to compute on; None for a labeler behind a server, which has its own stages (`tasks.ollama`).
    """

    params: type[Any]
    make: Callable[[Any, torch.device], Labeler] | None


@dataclass(frozen=True)
class Labeling:
    """A labeler's similarity scores for a data set.

    S: float64 (K, K), ``S[k, l]`` = mean of q(x, l) over the exemplars x of k (Eq 5). q, abstained, record: see `Judgement`.
    exemplar_class: int64 (M,); exemplar_ids: bytes "S32" (M,), the images that were used.
    """

    S: NDArray[np.float64]
    q: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    exemplar_class: NDArray[np.int64]
    exemplar_ids: NDArray[np.bytes_]
    identity: Identity
    record: Mapping[str, Any]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers for a safetensors file, ids as uint8 (M, 32)."""
        ids = self.exemplar_ids.astype("S32").view(np.uint8).reshape(-1, 32)
        return {
            "S": self.S,
            "q": self.q,
            "abstained": self.abstained.astype(np.uint8),
            "exemplar_class": self.exemplar_class,
            "exemplar_ids": ids,
        }
