"""Metrics of other installed packages: entry points of the group ``megu.metrics`` (`megu.core.plugins`), each an `OwnMetric`.

Every installed metric is measured in every run, on the original, the unlearned model and the retrains, beside megu's own metrics and
explained like them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from megu.core import plugins
from megu.core.errors import MeguError
from megu.evaluation.guide import METRICS, Metric

if TYPE_CHECKING:
    from megu.data.splits import ForgetSplit
    from megu.evaluation.condensed import Condensed

GROUP = "megu.metrics"


@dataclass(frozen=True, kw_only=True)
class OwnMetric(Metric):
    """A metric and how it is computed: ``(answers, train_labels, test_labels, split) -> value``, in the metric's unit; NaN where it is
    undefined. train_labels: int (N,), of every training image; test_labels: int (M,), of the test images that are measured, to which the
    answers and the positions in the split refer too.
    """

    compute: Callable[[Condensed, NDArray[Any], NDArray[Any], ForgetSplit], float]


def fault(found: Any) -> str:
    """Return why an object is not a metric; "" if it is one."""
    if not isinstance(found, OwnMetric):
        return f"it is a {type(found).__name__}, not a megu.evaluation.own.OwnMetric"
    return "" if re.fullmatch(r"\w+", found.group, re.ASCII) else f"its group {found.group!r} is not a word"


REGISTRY: plugins.Registry[Any] = plugins.Registry(GROUP, METRICS, fault)


def own_metrics() -> dict[str, OwnMetric]:
    """Return the installed metrics by name; an unusable one is reported as a warning and left out."""
    return REGISTRY.installed()


def explained() -> dict[str, Metric]:
    """Return every metric that a run here can have, in the order of the report."""
    return {**METRICS, **own_metrics()}


def measured(said: Condensed, train_labels: NDArray[Any], test_labels: NDArray[Any], split: ForgetSplit) -> dict[str, float]:
    """Return the value of each installed metric for one model's answers.

    Raises `MeguError` naming the metric that cannot be computed.
    """
    found = {}
    for name, metric in own_metrics().items():
        try:
            found[name] = float(metric.compute(said, train_labels, test_labels, split))
        except Exception as error:  # third-party code may raise anything
            plugin = REGISTRY.plugin(name)
            raise MeguError(
                f"{plugin} cannot be computed ({type(error).__name__}: {error})", f"mend or remove {plugin.distribution}"
            ) from error
    return found


def code() -> dict[str, str]:
    """Return what the values depend on: the code and version of the packages that provide the metrics."""
    found: dict[str, str] = {}
    for name in own_metrics():
        found |= REGISTRY.plugin(name).sources()
    return found
