"""The picture of a labeler's similarity scores, for ``megu label --show``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from megu.report.figures import COLOURS, INK, SOFT, FigureData, heat, short


@dataclass(frozen=True)
class Judged:
    """similarity: (K, K), row k what exemplars of class k look like. abstained: (K,), unanswered questions. nearest: by class, indices of
    the most similar other classes. agreement, sanity: named numbers, None where one is undefined.
    """

    classes: tuple[str, ...]
    similarity: NDArray[np.float64]
    abstained: NDArray[np.int64]
    nearest: Sequence[Sequence[int]]
    labeler: str
    agreement: Mapping[str, float | None]
    sanity: Mapping[str, float | None]


def draw(data: Judged) -> bytes:
    """Draw the matrix as PNG, beside each row its nearest concepts, and the abstentions where there are any."""
    count = len(data.classes)
    side, text = (5.6, 9.0) if count <= 12 else (7.5, 7.5) if count <= 30 else (0.14 * count, 7.5)
    silent = bool(data.abstained.any())
    figure = Figure(figsize=(side + (5.4 if silent else 4.2), side + 1.3), dpi=120, layout="constrained")
    figure.patch.set_facecolor("white")
    ratios = [side, 3.4, 1.2] if silent else [side, 3.4]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios, sharey=True)
    heat(
        figure,
        axes[0],
        data.similarity,
        FigureData(classes=data.classes, forgotten=(), per_class={}),
        "similarity S: row k, what exemplars of class k look like",
        low=0,
        high=max(float(data.similarity.max()), 1e-9),
        size=text,
    )
    # The rows continue to the right of the matrix, so it has to fill its height.
    axes[0].set_aspect("auto")
    axes[0].set_xlabel("concept")
    _nearest(axes[1], data, text)
    if silent:
        _abstentions(axes[2], data, text)
    figure.suptitle(_title(data), x=0.01, ha="left", fontsize=11, color=INK)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return content.getvalue()


def _nearest(axes: Axes, data: Judged, size: float) -> None:
    for k, others in enumerate(data.nearest):
        words = ",  ".join(
            f"{short(data.classes[at])} {data.similarity[k, at]:.2f}" for at in others if data.similarity[k, at] > 0
        )
        axes.text(0, k, words or "nothing", va="center", fontsize=size, color=INK if words else SOFT)
    axes.set_title("nearest concepts", fontsize=11, loc="left")
    axes.set_axis_off()


def _abstentions(axes: Axes, data: Judged, size: float) -> None:
    bars = axes.barh(range(len(data.classes)), data.abstained, color=COLOURS["unlearned"], height=0.7)
    axes.bar_label(bars, [str(count) if count else "" for count in data.abstained], fontsize=size, padding=2, color=INK)
    axes.set_title("abstentions", fontsize=11, loc="left")
    axes.margins(x=0.3)
    axes.set_axis_off()


def _title(data: Judged) -> str:
    def numbers(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {'undefined' if value is None else format(value, '.2f')}" for name, value in values.items())

    lines = [short(data.labeler, 120)]
    if data.agreement:
        lines.append(f"rank correlation with {numbers(data.agreement)}")
    if data.sanity:
        lines.append(f"sanity: {numbers(data.sanity)}")
    return "\n".join(lines)
