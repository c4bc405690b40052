"""The figures of the report, as PNG bytes. Deterministic: the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from megu.core import escaping

# Okabe and Ito's colours: colour-blind readers can tell them apart too.
COLOURS = {"original": "#767d89", "unlearned": "#d55e00", "reference": "#0072b2"}
INK, SOFT = "#1c2330", "#5b6575"
HEAT = "viridis"


@dataclass(frozen=True)
class Samples:
    """A few forget samples. images: uint8 (n, H, W, C). true: class names. predicted, confidence: the original's answer (n,).

    targets: (n, K), what they are taught; rows sum to 1.
    """

    images: NDArray[np.uint8]
    true: tuple[str, ...]
    predicted: NDArray[np.int64]
    confidence: NDArray[Any]
    targets: NDArray[Any]


@dataclass(frozen=True)
class NoisePictures:
    """One noise image per row. labels: class names. positive, negative, mixed: float (n, C, H, W), in the model's input space."""

    labels: tuple[str, ...]
    positive: NDArray[Any]
    negative: NDArray[Any]
    mixed: NDArray[Any]


@dataclass(frozen=True)
class FigureData:
    """Everything that is drawn; what is None is left out.

    forgotten: indices of the classes that are forgotten (or that forget samples come from). per_class: test accuracy (K,) in percent by
    model ("original", "unlearned", "reference"). soft, hard: (K, K); unique: (K,). transition: (K, K), columns sum to 1. confidence,
    entropy: by model and group ("forget", "retain", "test"), one number per sample. mia: percent by model. retrain: the retrain's title.
    """

    classes: tuple[str, ...]
    forgotten: tuple[int, ...]
    per_class: Mapping[str, NDArray[Any]]
    soft: NDArray[Any] | None = None
    hard: NDArray[Any] | None = None
    unique: NDArray[Any] | None = None
    transition: NDArray[Any] | None = None
    samples: Samples | None = None
    noise: NoisePictures | None = None
    confidence: Mapping[str, Mapping[str, NDArray[Any]]] | None = None
    entropy: Mapping[str, Mapping[str, NDArray[Any]]] | None = None
    mia: Mapping[str, float] | None = None
    retrain: str = "true retrain"

    def title(self, model: str) -> str:
        """Return the title of a model."""
        return self.retrain if model == "reference" else model


def draw(data: FigureData) -> dict[str, bytes]:
    """Draw every figure that the data allow, by the names of `megu.report.page.CAPTIONS`."""
    drawers: dict[str, Callable[[FigureData], Figure | None]] = {
        "per-class-accuracy": per_class_accuracy,
        "samples": samples,
        "entanglement": entanglement,
        "transition": transition,
        "noise": noise,
        "confidence": lambda data: distributions(data, data.confidence, "largest probability", 1.0),
        "entropy": lambda data: distributions(data, data.entropy, "entropy (nats)", float(np.log(len(data.classes))), data.mia),
    }
    found = {name: drawer(data) for name, drawer in drawers.items()}
    return {name: png(figure) for name, figure in found.items() if figure is not None}


def png(figure: Figure, dots: int = 110) -> bytes:
    """Return the figure as PNG, without the date and version that would differ from run to run."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dots, metadata={"Software": None})
    return buffer.getvalue()


def per_class_accuracy(data: FigureData) -> Figure:
    """Draw dots on a line for each class: original, unlearned, retrain; the forgotten classes stand out."""
    count = len(data.classes)
    figure = Figure(figsize=(9, max(2.2, 0.36 * count + 1.1)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(count)
    for k in data.forgotten:
        axes.axhspan(k - 0.5, k + 0.5, color="#fbe3d2", zorder=0)
    values = np.stack([np.asarray(entry, dtype=float) for entry in data.per_class.values()])
    # A class without test images has no accuracy in any model, and no line.
    axes.hlines(rows, np.fmin.reduce(values), np.fmax.reduce(values), color="#c5ccd6", linewidth=2, zorder=1)
    markers = {"original": "o", "unlearned": "D", "reference": "|"}
    for name, accuracy in data.per_class.items():
        size = {"original": 60, "unlearned": 46, "reference": 260}[name]
        axes.scatter(
            accuracy,
            rows,
            s=size,
            marker=markers[name],
            color=COLOURS[name],
            label=data.title(name),
            zorder=3,
            linewidths=2.4 if name == "reference" else 0.5,
        )
    axes.set_yticks(rows, [short(name) for name in data.classes], fontsize=9 if count <= 30 else 6)
    for k in data.forgotten:
        axes.get_yticklabels()[k].set_fontweight("bold")
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("test accuracy (%)")
    axes.grid(axis="x", color="#e7ebf0", zorder=0)
    _bare(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def entanglement(data: FigureData) -> Figure | None:
    """Draw soft and hard overlap side by side; the hard one's names show the share of a class's active channels that no other uses."""
    if data.soft is None or data.hard is None or data.unique is None:
        return None
    count = len(data.classes)
    side = 4.6 if count <= 20 else 7.5
    figure = Figure(figsize=(2 * side + 3.4, side + 0.9), layout="constrained")
    first, second = figure.subplots(1, 2)
    heat(figure, first, data.soft, data, "soft overlap (cosine)", low=-1, high=1, palette="RdBu_r")
    own = [f"{short(name)}, {100 * share:.0f}% own" for name, share in zip(data.classes, data.unique, strict=True)]
    heat(figure, second, data.hard, data, "hard overlap (Jaccard)", low=0, high=1, names=own)
    return figure


def transition(data: FigureData) -> Figure | None:
    """Draw T with the class names; column k is what class k looks like."""
    if data.transition is None:
        return None
    count = len(data.classes)
    side = 6.6 if count <= 20 else 10.5
    figure = Figure(figsize=(side + 1.6, side + 0.6), layout="constrained")
    axes = figure.subplots()
    heat(figure, axes, data.transition, data, "", low=0, high=float(data.transition.max()))
    axes.set_xlabel("class k (each column sums to 1)")
    axes.set_ylabel("looks like")
    return figure


def heat(
    figure: Figure,
    axes: Axes,
    matrix: NDArray[Any],
    data: FigureData,
    title: str,
    *,
    low: float,
    high: float,
    palette: str = HEAT,
    names: Sequence[str] | None = None,
    size: float | None = None,
) -> None:
    """Draw a matrix of classes, with numbers in it up to 20 classes. names: of the rows, if not the classes'. size: of the letters."""
    count = len(data.classes)
    picture = axes.imshow(matrix, vmin=low, vmax=high, cmap=palette, interpolation="nearest")
    size = size or (9 if count <= 12 else 7 if count <= 30 else 4.2)
    labels = [short(name) for name in data.classes]
    axes.set_xticks(
        range(count),
        labels,
        rotation=90 if count > 12 else 40,
        ha="center" if count > 12 else "right",
        rotation_mode="anchor" if count <= 12 else "default",
        fontsize=size,
    )
    axes.set_yticks(range(count), names or labels, fontsize=size)
    axes.tick_params(length=0)
    for k in data.forgotten:
        for tick in (axes.get_xticklabels()[k], axes.get_yticklabels()[k]):
            tick.set_fontweight("bold")
            tick.set_color(COLOURS["unlearned"])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=11)
    if count <= 20:
        colours = np.asarray(picture.cmap(picture.norm(matrix)))
        dark = colours[..., :3] @ np.array([0.299, 0.587, 0.114]) < 0.55
        for (row, column), value in np.ndenumerate(matrix):
            text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=7.5 if count <= 12 else 5,
                color="white" if dark[row, column] else INK,
            )
    figure.colorbar(picture, ax=axes, shrink=0.7, pad=0.02)


def samples(data: FigureData) -> Figure | None:
    """Draw forget samples with the original's answer and the labels they are taught instead."""
    found = data.samples
    if found is None or not len(found.images):
        return None
    columns = min(6, len(found.images))
    rows = -(-len(found.images) // columns)
    figure = Figure(figsize=(10.4, 2.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(found.images) :]:
        axes.axis("off")
    for number, axes in enumerate(grid[: len(found.images)]):
        picture(axes, found.images[number] / 255.0)
        axes.set_title(
            f"{short(data.classes[int(found.predicted[number])])} {100 * found.confidence[number]:.0f}%",
            fontsize=9,
            color=SOFT,
        )
        best = [int(k) for k in np.argsort(-found.targets[number], kind="stable")[:3] if found.targets[number][k] > 0.005]
        axes.set_xlabel(
            "\n".join(f"{short(data.classes[k])} {100 * found.targets[number][k]:.0f}%" for k in best),
            fontsize=9,
            color=COLOURS["unlearned"],
        )
    return figure


def noise(data: FigureData) -> Figure | None:
    """Draw positive, negative and mixed noise, one label per column."""
    found = data.noise
    if found is None or not len(found.labels):
        return None
    count = len(found.labels)
    figure = Figure(figsize=(10.4, 3.1 * 10.4 / (count + 0.8) * 1.02), layout="constrained")
    grid = figure.subplots(3, count, squeeze=False)
    kinds = {"positive": found.positive, "negative": found.negative, "mixture": found.mixed}
    for row, (kind, images) in enumerate(kinds.items()):
        reach = float(np.quantile(np.abs(images), 0.995)) or 1.0
        for column in range(count):
            axes = grid[row, column]
            picture(axes, np.clip(images[column].transpose(1, 2, 0) / (2 * reach) + 0.5, 0, 1))
            if not row:
                axes.set_title(short(found.labels[column]), fontsize=9)
        grid[row, 0].set_ylabel(kind, fontsize=10)
    return figure


def picture(axes: Axes, image: NDArray[Any]) -> None:
    """Draw an image (H, W, C) in [0, 1], pixel by pixel without interpolation, so that a purge finds it."""
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c5ccd6")


def distributions(
    data: FigureData,
    values: Mapping[str, Mapping[str, NDArray[Any]]] | None,
    axis: str,
    high: float,
    mia: Mapping[str, float] | None = None,
) -> Figure | None:
    """Draw a histogram for each model: forgotten training samples against retained training and test samples."""
    if not values:
        return None
    figure = Figure(figsize=(10.4, 3.3), layout="constrained")
    grid = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    edges = np.linspace(0, high, 41)
    for axes, (model, groups) in zip(grid, values.items(), strict=True):
        for group, colour, label in (("retain", "#56b4e9", "retained, train"), ("test", "#009e73", "test")):
            axes.hist(
                groups[group], edges, weights=_share(groups[group]), histtype="step", color=colour, label=label, linewidth=1.6
            )
        axes.hist(
            groups["forget"],
            edges,
            weights=_share(groups["forget"]),
            color=COLOURS["unlearned"],
            alpha=0.55,
            label="forgotten, train",
        )
        title = data.title(model) + (f" — MIA {mia[model]:.0f}%" if mia and model in mia else "")
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(axis)
        # A confident model has nearly everything in one bin; the rest would be a flat line.
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(0, 1.15)
        axes.set_yticks([0, 0.01, 0.1, 1], ["0", "1%", "10%", "100%"])
        axes.minorticks_off()
        axes.grid(axis="y", color="#e7ebf0")
        axes.set_axisbelow(True)
        _bare(axes)
    grid[0].set_ylabel("share of the samples")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _share(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.full(len(values), 1 / max(len(values), 1))


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def short(name: str, most: int = 16) -> str:
    """Shorten a class name for a label."""
    return escaping.figure(name, most)
