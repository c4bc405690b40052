"""The certificate's figure, as SVG inside the page: before, now, and a model that never saw the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Protocol

from markupsafe import Markup


class Shares(Protocol):
    """Percentages, and the text of each."""

    @property
    def values(self) -> Sequence[float | None]: ...

    @property
    def written(self) -> Sequence[str]: ...


#: As in the report's figures: colour-blind readers can tell them apart too.
COLOURS = ("#767d89", "#d55e00", "#0072b2")
MODELS = ("before", "now", "never saw it")
#: In pixels of the drawing. A row is one bar.
WIDTH, LEFT, RIGHT, ROW, BAR = 680, 96, 64, 22, 14


def bars(measure: Shares, models: Sequence[str] = MODELS) -> Markup:
    """Draw horizontal bars from 0 to 100%, one per model; a model that was not measured gets a dash. models: their names."""
    said = ", ".join(f"{model} {value}" for model, value in zip(models, measure.written, strict=False))
    drawn = "\n".join(_rows(measure, models))
    height = ROW * len(measure.values) - (ROW - BAR)
    return Markup(  # every text in it is escaped
        f'<svg role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">\n{drawn}\n</svg>'
    )


def _rows(measure: Shares, models: Sequence[str]) -> Iterator[str]:
    for number, value in enumerate(measure.values):
        y, width = ROW * number, (WIDTH - LEFT - RIGHT) * (value or 0.0) / 100
        yield f'<text x="{LEFT - 8}" y="{y + 12}" class="model">{escape(models[number])}</text>'
        yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" height="{BAR}" rx="2" class="track"/>'
        yield f'<rect x="{LEFT}" y="{y}" width="{max(width, 1.5):.1f}" height="{BAR}" rx="2" fill="{COLOURS[number]}"/>'
        yield f'<text x="{WIDTH - RIGHT + 8}" y="{y + 12}" class="value">{escape(measure.written[number])}</text>'
