"""A model's outputs, reduced to what the evaluation needs: a tenth to a quarter of the logits of a large data set.

For a retained training image the metrics need the predicted class, its probability and the entropy; for a forgotten one, and for a test
image, the logits. Everything kept equals, bit for bit, what the full logits give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.evaluation import entropies, softmax

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Condensed:
    """predicted: int32 (N,), the predicted class of each training image. confidence: float32 (N,), the largest probability, in (0, 1].
    entropy: float64 (N,), in nats. forget: logits (F, K) of the forgotten training images, in the order of the split. test: logits (M, K)
    of the test images.
    """

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    entropy: Floats
    forget: NDArray[Any]
    test: NDArray[Any]


def condense(train_logits: NDArray[Any], test_logits: NDArray[Any], forget: NDArray[Any]) -> Condensed:
    """Reduce the logits (N, K) and (M, K) of a data set's images. forget: positions (F,) of the forgotten training images."""
    probabilities = softmax(train_logits)
    return Condensed(
        predicted=train_logits.argmax(1).astype(np.int32),
        confidence=probabilities.max(axis=1).astype(np.float32),
        entropy=entropies(probabilities),
        forget=train_logits[forget],
        test=test_logits,
    )
