"""The inputs of unlearning about the forget samples: their perturbing labels, their training targets and how sure of them a model should
be. `megu.unlearning.labels.perturbing` makes them; the stages that only read them do not depend on how.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Perturbing:
    """labels: int64 (N,), one label per sample: the paper's rank label, or the ablation's.

    targets: float32 (N, K), the targets of the re-optimisation; rows sum to 1.
    reasoning: float64 (N, K), R with the forgotten classes at 0, rows summing to 1.
    entropies: float64 (N,), in nats, to which the soft targets were fitted, for the samples whose class leaves; NaN for the others.
    sharpness: the exponent on R that was used; the median where each sample has its own.
    """

    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    reasoning: Floats
    entropies: Floats
    sharpness: float = 1.0
