"""Which data set is used, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from megu.core.params import STRICT, check

#: What becomes of images that were erased and are offered again (`megu.suppression`).
Suppressed = Literal["drop", "refuse"]


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """name: the data set, a folder under ``data/``; known ones are fetched (``megu data fetch``), others come by ``megu data add``.
    per_class: of each class only so many training images count, the same ones every time; null for all. Test images always all count.
    suppressed: what becomes of images that were erased and are offered again: refused ("refuse"), or left out and named ("drop").
    """

    __pydantic_config__ = STRICT

    name: str = "fashion-mnist"
    per_class: int | None = None
    suppressed: Suppressed = "refuse"

    def __post_init__(self) -> None:
        holds = bool(self.name) and self.name == Path(self.name).name and not self.name.startswith(".")
        check("name", self.name, holds, "the name of a folder under data/")
        check("per_class", self.per_class, self.per_class is None or self.per_class >= 1, "at least 1, or null for all")
        known = get_args(Suppressed)
        check("suppressed", self.suppressed, self.suppressed in known, f"one of {', '.join(known)}")
