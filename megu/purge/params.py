"""What the section ``purge`` of the configuration says."""

from __future__ import annotations

from dataclasses import dataclass

from megu.params import STRICT, check


@dataclass(frozen=True, kw_only=True)
class PurgeParams:
    """models_days: days after a run for which the models that it superseded are kept, to go back to; 0 erases them at once, None never.

    test_images: whether a request for a class or sub-class takes its test images too.
    """

    __pydantic_config__ = STRICT

    models_days: int | None = 30
    test_images: bool = True

    def __post_init__(self) -> None:
        check(
            "models_days", self.models_days, self.models_days is None or self.models_days >= 0, "at least 0, or null for ever"
        )
