"""Which data set is used, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megu.core.params import STRICT, check


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """name: the data set, a folder under ``data/``; "fashion-mnist" is fetched, others come by ``megu data add``.

    per_class: of each class the training images that count, the same ones every time; None for all. Test images always all count.
    """

    __pydantic_config__ = STRICT

    name: str = "fashion-mnist"
    per_class: int | None = None

    def __post_init__(self) -> None:
        holds = bool(self.name) and self.name == Path(self.name).name and not self.name.startswith(".")
        check("name", self.name, holds, "the name of a folder under data/")
        check("per_class", self.per_class, self.per_class is None or self.per_class >= 1, "at least 1, or null for all")
