"""The parameters of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from megu.core.params import STRICT, check


@dataclass(frozen=True, kw_only=True)
class RelearnParams:
    """steps: when to give up. tolerance: points below the original's accuracy that count as regained. lr, batch_size: of Adam.

    The ranges are those of `EvaluationParams`, where the values come from.
    """

    steps: int = 500
    tolerance: float = 5.0
    lr: float = 1e-4
    batch_size: int = 64


@dataclass(frozen=True, kw_only=True)
class DeepParams:
    """How a network is fine-tuned for the deep checks. steps, lr, batch_size: of Adam.

    The ranges are those of `EvaluationParams`, where the values come from.
    """

    steps: int = 40
    lr: float = 1e-4
    batch_size: int = 64


@dataclass(frozen=True, kw_only=True)
class EvaluationParams:
    """What is measured beyond accuracies and the attacks on entropy. Each part trains networks, so all are off by default.

    shadows: shadow models for the per-sample attack (`megu.evaluation.attacks.shadows`), in complementary pairs; 0 leaves the attack
        out.
    seed: of the shadows, of relearning and of the deep checks; not the run's seed, so that a new run seed trains no shadow again.
    relearn: whether to count the steps that bring the forget set back (`megu.evaluation.relearning`).
    relearn_steps: when to give up counting.
    relearn_tolerance: points below the original's accuracy that count as regained.
    relearn_lr: of Adam, constant.
    relearn_batch_size: images per step.
    deep: whether to look for forgotten content below the last layer (`megu.evaluation.deep`): a probe, relearning from the retain
        set alone and from a few forgotten images.
    deep_steps: of fine-tuning, for each of the two.
    deep_lr: of Adam, constant.
    deep_batch_size: images per step.
    """

    __pydantic_config__ = STRICT

    shadows: int = 0
    seed: int = 0
    relearn: bool = False
    relearn_steps: int = 500
    relearn_tolerance: float = 5.0
    relearn_lr: float = 1e-4
    relearn_batch_size: int = 64
    deep: bool = False
    deep_steps: int = 40
    deep_lr: float = 1e-4
    deep_batch_size: int = 64

    def __post_init__(self) -> None:
        even = 0 <= self.shadows <= 256 and self.shadows % 2 == 0
        check("shadows", self.shadows, even, "0 or an even number up to 256: they are trained on complementary halves")
        check("seed", self.seed, 0 <= self.seed < 2**31, "at least 0 and below 2147483648")
        check("relearn_steps", self.relearn_steps, 1 <= self.relearn_steps <= 100_000, "between 1 and 100000")
        check("relearn_tolerance", self.relearn_tolerance, 0 <= self.relearn_tolerance < 100, "at least 0 and below 100")
        check("relearn_lr", self.relearn_lr, 0 < self.relearn_lr <= 1, "above 0 and at most 1")
        check("relearn_batch_size", self.relearn_batch_size, self.relearn_batch_size >= 1, "at least 1")
        check("deep_steps", self.deep_steps, 1 <= self.deep_steps <= 10_000, "between 1 and 10000")
        check("deep_lr", self.deep_lr, 0 < self.deep_lr <= 1, "above 0 and at most 1")
        check("deep_batch_size", self.deep_batch_size, self.deep_batch_size >= 2, "at least 2")

    @property
    def checks(self) -> DeepParams:
        """The recipe of the deep checks alone, so that their results depend on nothing else."""
        return DeepParams(steps=self.deep_steps, lr=self.deep_lr, batch_size=self.deep_batch_size)

    @property
    def relearning(self) -> RelearnParams:
        """The recipe of relearning alone, so that its results depend on nothing else."""
        return RelearnParams(
            steps=self.relearn_steps,
            tolerance=self.relearn_tolerance,
            lr=self.relearn_lr,
            batch_size=self.relearn_batch_size,
        )
