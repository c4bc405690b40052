"""What is known of the forget samples when they are unlearned: their perturbing labels, the targets that are taught and how sure of them a
model is to be. `megu.unlearning.labels.perturbing` makes them; the stages that only read them do not depend on how.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Perturbing:
    """labels: int64 (N,), one label a sample: the paper's rank label, or the ablation's.

    targets: float32 (N, K), what the re-optimisation teaches; rows sum to 1.
    reasoning: float64 (N, K), R with the forgotten classes at 0, rows summing to 1.
    entropies: float64 (N,), what the soft targets were fitted to, in nats, for the samples whose class leaves; NaN for the others.
    sharpness: the exponent on R that was used, their median where each sample has its own.
    """

    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    reasoning: Floats
    entropies: Floats
    sharpness: float = 1.0
