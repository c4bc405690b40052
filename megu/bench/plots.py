"""The figures of a benchmark, as PNG bytes: retain against forget accuracy, gap against time, and a sweep's curves.

Every method has the same colour and marker in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from megu.bench.paired import MEASURES, differences
from megu.bench.scores import CellScore, finished
from megu.bench.table import ORIGINAL, floors, retrain_of, spread, summary
from megu.core import escaping
from megu.evaluation.statistics import interval
from megu.report.figures import COLOURS, INK, SOFT, png

#: Okabe and Ito's colours and two more, each with a marker, so that neither alone has to tell the methods apart.
STYLES = [
    ("#d55e00", "D"), ("#009e73", "o"), ("#cc79a7", "s"), ("#e69f00", "^"), ("#56b4e9", "v"), ("#8c6d31", "P"),
    ("#6a3d9a", "X"), ("#b2182b", "<"), ("#1b7837", ">"), ("#4d4d4d", "p"), ("#c51b7d", "h"), ("#01665e", "d"),
]  # fmt: skip
GRID = "#e7ebf0"
Style = tuple[str, str]


def draw(marks: Sequence[CellScore]) -> dict[str, bytes]:
    """Draw every figure for which the scores have data, by name."""
    good = finished(marks)
    found = {}
    if any(mark.swept for mark in good):
        found["sweep"] = png(sweep(good))
    elif good:
        found["retain-forget"] = png(retain_forget(good))
        if any(mark.time_share for mark in good):
            found["gap-time"] = png(gap_time(good))
    return found


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """Return colour and marker of each method; beyond twelve methods the markers shift against the colours."""
    return {
        name: (STYLES[at % len(STYLES)][0], STYLES[(at + at // len(STYLES)) % len(STYLES)][1])
        for at, name in enumerate(dict.fromkeys(methods))
    }


def retain_forget(marks: Sequence[CellScore]) -> Figure:
    """Draw a panel per target: accuracy on the forgotten against that on the retained, the mean over seeds large, each seed small.

    The star is the retrain: that is where a method should be.
    """
    targets = list(dict.fromkeys(mark.target for mark in marks))
    style = styles([mark.method for mark in marks])
    columns = min(3, len(targets))
    rows = -(-len(targets) // columns)
    figure = Figure(figsize=(4.3 * columns + 0.6, 3.7 * rows + 1.1), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(targets) :]:
        axes.axis("off")
    for axes, target in zip(grid, targets, strict=False):
        _panel(axes, [mark for mark in marks if mark.target == target], style)
        axes.set_title(_text(target), fontsize=11)
        axes.set_xlabel("Af: accuracy on the forgotten (%)")
        axes.set_ylabel("Ar: accuracy on the retained (%)")
    figure.legend(
        handles=_handles(style, retrain_of(marks)),
        loc="outside lower center",
        ncols=min(5, 2 * columns),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, marks: Sequence[CellScore], style: Mapping[str, Style]) -> None:
    """Draw one target. Where the retrain has forgotten nearly everything, points with an Af of 0 are set side by side, each method in its
    own place."""
    reference, original = (spread([_point(getattr(mark, key)) for mark in marks]) for key in ("reference", "original"))
    beside = reference["Af"]["mean"] < STRETCHED
    places = {name: -1 + (at + 1) / (len(style) + 1) for at, name in enumerate(style)}
    if beside:
        _stretch_small(axes)
    x = ZERO_AT if beside and reference["Af"]["mean"] < ZERO else reference["Af"]["mean"]
    if not beside:
        axes.axvline(x, color=COLOURS["reference"], linewidth=0.8, alpha=0.6, zorder=1)
    axes.axhline(reference["Ar"]["mean"], color=COLOURS["reference"], linewidth=0.8, alpha=0.6, zorder=1)
    star: dict[str, Any] = {"s": 260, "marker": "*", "color": COLOURS["reference"], "edgecolors": "white", "linewidths": 0.8}
    axes.scatter(x, reference["Ar"]["mean"], zorder=5, **star)
    # An original that was hardly trained may not know the forgotten class either: it goes last in the band.
    knew = -0.5 / (len(style) + 1) if beside and original["Af"]["mean"] < ZERO else original["Af"]["mean"]
    axes.scatter(knew, original["Ar"]["mean"], s=60, color=COLOURS["original"], edgecolors="white", zorder=3)
    for method, (colour, marker) in style.items():
        own = [_point(mark.unlearned) for mark in marks if mark.method == method]
        if not own:
            continue
        mean = {name: entry["mean"] for name, entry in spread(own).items()}
        for points, size, alpha in ((own if len(own) > 1 else [], 12, 0.5), ([mean], 62, 1.0)):
            xs = [places[method] if beside and point["Af"] < ZERO else point["Af"] for point in points]
            edge: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.7} if alpha == 1 else {"linewidths": 0}
            ys = [point["Ar"] for point in points]
            axes.scatter(xs, ys, s=size, marker=marker, color=colour, alpha=alpha, zorder=3 + alpha, **edge)
    axes.grid(color=GRID, zorder=0)
    axes.set_axisbelow(True)
    _bare(axes)


#: A point with an Af below `ZERO` percent is drawn as 0. For a retrain below `STRETCHED` the axis is stretched near 0, its star at `ZERO_AT`.
ZERO, STRETCHED, ZERO_AT = 0.05, 5.0, -1.06


def _point(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("Af", "Ar")}


def _stretch_small(axes: Axes) -> None:
    """Scale an axis for forget accuracies, most of which are 0: a band for those left of 0, linear up to 1, logarithmic from there."""

    def forward(x: NDArray[Any]) -> NDArray[Any]:
        return np.where(x < 0, 1.6 * x, np.where(x <= 1, 0.5 * x, 0.5 + 0.75 * np.log10(np.maximum(x, 1e-9))))

    def back(y: NDArray[Any]) -> NDArray[Any]:
        return np.where(y < 0, y / 1.6, np.where(y <= 0.5, 2 * y, 10 ** ((np.maximum(y, 0.5) - 0.5) / 0.75)))

    axes.set_xscale("function", functions=(forward, back))
    axes.axvspan(-1.14, 0, color="#f2f4f7", zorder=0)
    axes.set_xlim(-1.14, 140)
    axes.set_xticks([-0.55, 1, 10, 100], ["0", "1", "10", "100"])
    axes.minorticks_off()


def _handles(style: Mapping[str, Style], retrain: str) -> list[Line2D]:
    def handle(name: str, colour: str, marker: str, size: float) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=colour, markersize=size, label=_text(name), markeredgecolor="white"
        )

    return [
        handle(retrain, COLOURS["reference"], "*", 15),
        handle(ORIGINAL, COLOURS["original"], "o", 9),
        *(handle(name, colour, marker, 9) for name, (colour, marker) in style.items()),
    ]


def gap_time(marks: Sequence[CellScore]) -> Figure:
    """Draw the mean gap to the retrain, with its 95% interval, against the time in percent of the retrain's, over all targets and seeds.

    The band, where there are retrains of several seeds, is the gap between them: inside it a method cannot be told from a retrain by these
    metrics.
    """
    style = styles([mark.method for mark in marks])
    table = {row.method: row for row in summary(marks)}
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    labels, ends = [], []
    highest = 0.0
    for method, (colour, marker) in style.items():
        row = table[method].values
        if "time_share" not in row or "gap" not in row:
            continue
        x, entry = max(row["time_share"]["mean"], 1e-3), row["gap"]
        highest = max(highest, entry["mean"])
        if entry["n"] > 1:
            axes.vlines(x, max(entry["low"], 0), entry["high"], color=colour, linewidth=1.2, alpha=0.6, zorder=2)
            ends.append((x, entry["high"], colour))
        axes.scatter(x, entry["mean"], s=80, marker=marker, color=colour, edgecolors="white", linewidths=0.7, zorder=4)
        labels.append((x, entry["mean"], method, colour))
    labels.append(_retrain_and_floor(axes, marks))
    original = table[ORIGINAL].values.get("gap")
    top = 1.18 * highest + 0.5
    shown = [x for x, *_ in labels]
    axes.set_xlim(min(shown) / 2.2, max(shown) * 2.6)
    if original:
        if original["mean"] < 1.6 * top:
            top = max(top, 1.12 * original["mean"])
            axes.axhline(original["mean"], color=COLOURS["original"], linestyle="--", linewidth=1.2, zorder=1)
        where = "" if original["mean"] < top else ", above the picture"
        axes.text(
            0.995,
            min(original["mean"] / top, 0.965) + 0.008,
            f"original, nothing forgotten: {original['mean']:.1f}{where}",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=9,
            color=SOFT,
        )
    axes.set_ylim(0, top)
    _beyond(axes, [(x, colour) for x, high, colour in ends if high > top], top)
    axes.set_xlabel("time of the unlearning (% of the retrain's, logarithmic)")
    axes.set_ylabel("mean gap to the retrain over Ar, Af, MIA (points)")
    low, high = axes.get_xlim()
    ticks = [digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(color=GRID, zorder=0)
    axes.set_axisbelow(True)
    _bare(axes)
    _name(figure, axes, labels)
    return figure


def _beyond(axes: Axes, ends: Sequence[tuple[float, str]], top: float) -> None:
    """Mark the intervals (x, colour) that extend above the picture, which is only as high as its means need."""
    for x, colour in ends:
        axes.scatter(x, top, s=50, marker="^", color=colour, clip_on=False, zorder=6)
    if ends:
        said = "arrows: the interval goes on above the picture"
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(0.005, 0.985, said, transform=axes.transAxes, va="top", fontsize=9, color=SOFT, bbox=paper, zorder=6)


def _retrain_and_floor(axes: Axes, marks: Sequence[CellScore]) -> tuple[float, float, str, str]:
    """Draw the retrain at 100%, at the height of the gap between two retrains where that is known; return its label."""
    between = [entry["gap"] for entries in floors(marks).values() for entry in entries if "gap" in entry]
    floor = interval(between)["mean"] if between else 0.0
    if between:
        axes.axhspan(0, floor, color="#dbe9f6", zorder=0)
    axes.scatter(100, floor, s=280, marker="*", color=COLOURS["reference"], edgecolors="white", linewidths=0.8, zorder=5)
    return 100.0, floor, "retrain, another seed" if between else retrain_of(marks), COLOURS["reference"]


def _name(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str, str]], size: float = 9.5) -> None:
    """Write each label beside its point without covering another label or a point; a thin line leads back where it had to move."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)  # positions are known only after drawing
    points = axes.transData.transform(np.array([(x, y) for x, y, *_ in labels]))
    sizes = []
    for *_, name, _ in labels:
        text = axes.text(0, 0, _text(name), fontsize=size)
        box = text.get_window_extent(renderer)
        sizes.append((box.width + 4, box.height + 2))
        text.remove()
    frame = axes.get_window_extent(renderer)
    places = label_positions(points, np.array(sizes), (frame.x0, frame.y0, frame.x1, frame.y1))
    back = axes.transData.inverted()
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for (x, y, name, colour), point, place, extent in zip(labels, points, places, sizes, strict=True):
        at = back.transform(place)
        axes.text(
            float(at[0]),
            float(at[1]),
            _text(name),
            fontsize=size,
            color=INK,
            ha="center",
            va="center",
            zorder=6,
            path_effects=halo,
        )
        nearest = np.clip(point, place - np.array(extent) / 2, place + np.array(extent) / 2)
        if np.hypot(*(nearest - point)) > 14:
            axes.plot(*zip((x, y), back.transform(nearest), strict=True), color=colour, linewidth=0.7, zorder=3)


def label_positions(
    points: NDArray[Any], sizes: NDArray[Any], frame: tuple[float, float, float, float], radius: float = 11.0
) -> NDArray[np.float64]:
    """Return where to put the centre of each label, in the units of the points: near its own point, over no other label and no point.

    points: (n, 2). sizes: (n, 2), width and height. frame: left, bottom, right, top. Greedy: the most crowded first, each at the nearest of
    the free places on rings around its point; where none is free, the one with the least overlap.
    """
    crowd = [-float(np.sum(np.hypot(*(points - point).T) < 120)) for point in points]
    places = np.array(points, dtype=np.float64)
    done: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for at in np.argsort(crowd, kind="stable"):
        half = sizes[at] / 2
        best, least = places[at], np.inf
        for ring in range(12):
            for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
                toward = np.array([np.cos(angle), np.sin(angle)])
                place = points[at] + toward * (half + radius + 7 * ring)
                low, high = place - half, place + half
                outside = max(frame[0] - low[0], frame[1] - low[1], high[0] - frame[2], high[1] - frame[3], 0.0)
                over = sum(overlap(low, high, other - size, other + size) for other, size in done)
                over += sum(overlap(low, high, point - radius, point + radius) for point in points)
                cost = 1e3 * outside + over + 0.05 * ring
                if cost < least:
                    best, least = place, cost
            if least < 1:
                break
        places[at] = best
        done.append((best, half))
    return places


def overlap(low: NDArray[Any], high: NDArray[Any], other_low: NDArray[Any], other_high: NDArray[Any]) -> float:
    """Return the area that two boxes share."""
    sides = np.minimum(high, other_high) - np.maximum(low, other_low)
    return float(sides[0] * sides[1]) if (sides > 0).all() else 0.0


def paired(groups: Mapping[str, Sequence[CellScore]], against: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
    """Draw a column per group of scores and a row per measure: each method's differences from the one that ``against`` names, a small dot
    for each target and seed, the mean large with its 95% interval. Left of the line a method is nearer to the retrain. colours: by method.
    """
    figure = Figure(figsize=(3.6 * len(groups) + 1.6, len(MEASURES) * (0.24 * len(against) + 0.7) + 0.4), layout="constrained")
    grid = figure.subplots(len(MEASURES), len(groups), squeeze=False, sharey=True)
    for column, (group, marks) in enumerate(groups.items()):
        pairs = {method: differences(marks, method, other) for method, other in against.items()}
        for axes, (name, title, unit, _) in zip(grid[:, column], MEASURES, strict=True):
            axes.axvline(0, color=COLOURS["reference"], linewidth=1, zorder=1)
            for place, (method, entries) in enumerate(pairs.items()):
                values = [entry[name] for entry in entries if name in entry]
                if not values:
                    continue
                axes.scatter(values, [place] * len(values), s=7, color=colours[method], alpha=0.3, linewidths=0, zorder=2)
                entry = interval(values)
                if entry["n"] > 1:
                    axes.hlines(place, entry["low"], entry["high"], color=colours[method], linewidth=2, zorder=3)
                axes.scatter(entry["mean"], place, s=34, color=colours[method], edgecolors="white", linewidths=0.6, zorder=4)
            axes.set_yticks(range(len(against)), [_text(method, 40) for method in against], fontsize=8)
            axes.set_ylim(len(against) - 0.5, -0.5)
            axes.set_xlabel(f"{title} ({unit})", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(axis="x", color=GRID, zorder=0)
            _bare(axes)
        grid[0, column].set_title(_text(group, 40), fontsize=10)
    return figure


def sweep(marks: Sequence[CellScore]) -> Figure:
    """Draw a column per swept key and a row per metric: the mean over targets and seeds with its 95% interval, the retrain's as a line."""
    keys = list(dict.fromkeys(mark.swept[0] for mark in marks if mark.swept))
    metrics = ("gap", "Ar", "Af", "MIA")
    style = styles([mark.method for mark in marks])
    figure = Figure(figsize=(3.6 * len(keys) + 1.2, 2.1 * len(metrics) + 1.0), layout="constrained")
    grid = figure.subplots(len(metrics), len(keys), squeeze=False, sharex="col", sharey="row")
    for column, key in enumerate(keys):
        own = [mark for mark in marks if mark.swept and mark.swept[0] == key]
        values = list(dict.fromkeys(mark.swept[1] for mark in own if mark.swept))
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        for row, metric in enumerate(metrics):
            axes = grid[row, column]
            for method, (colour, marker) in style.items():
                _curve(axes, [mark for mark in own if mark.method == method], metric, values, numbers, colour, marker)
            reference = [mark.reference[metric] for mark in own if metric in mark.reference]
            if reference:
                axes.axhline(float(np.mean(reference)), color=COLOURS["reference"], linewidth=1.2, linestyle="--", zorder=1)
            if not column:
                axes.set_ylabel("gap (points)" if metric == "gap" else f"{metric} (%)")
            axes.grid(color=GRID, zorder=0)
            _bare(axes)
        grid[-1, column].set_xlabel(_text(key, 40))
        if numbers and min(values) > 0 and max(values) >= 20 * min(values):
            grid[-1, column].set_xscale("log")
            grid[-1, column].minorticks_off()
        grid[-1, column].set_xticks(values if numbers else range(len(values)), [str(value) for value in values], fontsize=8)
    handles = [
        *(Line2D([], [], color=colour, marker=marker, label=_text(name)) for name, (colour, marker) in style.items()),
        Line2D([], [], color=COLOURS["reference"], linestyle="--", label=retrain_of(marks)),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _curve(
    axes: Axes, marks: Sequence[CellScore], metric: str, values: Sequence[Any], numbers: bool, colour: str, marker: str
) -> None:
    found = []
    for at, value in enumerate(values):
        own = [mark.numbers()[metric] for mark in marks if mark.swept and mark.swept[1] == value and metric in mark.numbers()]
        if own:
            entry = interval(own)
            half = (entry["high"] - entry["low"]) / 2 if entry["n"] > 1 else 0.0
            found.append((value if numbers else at, entry["mean"], half))
    if found:
        xs, ys, halves = (np.array(column, dtype=float) for column in zip(*sorted(found), strict=True))
        axes.errorbar(
            xs, ys, yerr=halves, color=colour, marker=marker, markersize=5, linewidth=1.6, capsize=2.5, elinewidth=1, zorder=3
        )


def _text(name: str, most: int = 28) -> str:
    return escaping.figure(name, most)


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c5ccd6")
    axes.tick_params(length=0)
