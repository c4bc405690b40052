"""Which data set is used, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from megu.core.params import STRICT, check

#: What happens to erased images that are added again (`megu.suppression`).
Suppressed = Literal["drop", "refuse"]


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """name: the data set, a folder under ``data/``; fetch a known one with ``megu data fetch``, add your own with ``megu data add``.
    per_class: how many training images of each class are used, the same ones every time; null for all. All test images are always used.
    suppressed: what happens to erased images that are added again: they are refused ("refuse"), or left out and reported ("drop").
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
