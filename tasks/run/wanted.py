"""What a configuration requires from the pipeline: the conditions of its rows, and the repetitions of some."""

from __future__ import annotations

from typing import Any

from megu.config.tree import Config
from megu.promotion.params import RETRAIN
from tasks.run import inputs


def copies(config: Config) -> bool:
    """Whether the copies of what is to be forgotten are forgotten with it."""
    return config.forget.near_duplicates == "include"


def no_copies(config: Config) -> bool:
    return not copies(config)


def original_provided(config: Config) -> bool:
    return config.original.provided


def original_trained(config: Config) -> bool:
    return not config.original.provided


def reference_provided(config: Config) -> bool:
    return config.reference.provided


def labels(config: Config) -> bool:
    """Whether the method uses perturbing labels."""
    return "perturbing" in inputs.needs(config)


def noise(config: Config) -> bool:
    return "noise" in inputs.needs(config)


def ollama(config: Config) -> bool:
    return bool(config.labeling.kind == "ollama")


def local_labeler(config: Config) -> bool:
    """Whether the labeler computes here, without querying a model."""
    return not ollama(config)


def ollama_subclasses(config: Config) -> bool:
    """Whether the vision model also describes sub-classes that are to be forgotten while their classes stay."""
    return ollama(config) and bool(inputs.subclasses(config))


def local_subclasses(config: Config) -> bool:
    return local_labeler(config) and bool(inputs.subclasses(config))


def exact(config: Config) -> bool:
    """Whether the method is the very retrain that is compared with, so that one training serves both."""
    return config.unlearn.method == RETRAIN and config.reference.enabled and not config.reference.provided


def approximate(config: Config) -> bool:
    return not exact(config)


def relearning(config: Config) -> bool:
    return config.evaluation.relearn


def deep_checks(config: Config) -> bool:
    return config.evaluation.deep


def retrain(config: Config, number: int = 0) -> str:
    """Return the label of the retrain with this number, from 0."""
    return f"reference {number + 1}" if config.reference.repeats > 1 else "reference"


def retrains(config: Config) -> list[dict[str, Any]]:
    """Return the retrains that are still to be trained after the unlearning."""
    there = int(exact(config) or config.reference.provided)
    numbers = range(there, config.reference.repeats) if config.reference.enabled else ()
    return [{"label": retrain(config, number), "seed": config.seed + number} for number in numbers]


def shadows(config: Config) -> list[dict[str, Any]]:
    return [{"label": f"shadow {number + 1}", "number": number} for number in range(config.evaluation.shadows)]
