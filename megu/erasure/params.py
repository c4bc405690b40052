"""What the section ``purge`` of the configuration says."""

from __future__ import annotations

from dataclasses import dataclass

from megu.core.params import STRICT, check


@dataclass(frozen=True, kw_only=True)
class PurgeParams:
    """models_days: days after a run for which the superseded models that knew the samples are kept, to go back to; 0 erases them at
        once, null never.
    test_images: whether a request for a class or sub-class takes its test images too.
    shared_stores: whether no other project uses the DVC cache and remotes outside of the project's folder, nor a cache that is shared
        (``cache.shared``): only then is anything removed from them.
    suppress_days: days for which what was erased is recognised when it is offered again (`megu.suppression`); 0 not at all, null for
        ever.
    """

    __pydantic_config__ = STRICT

    models_days: int | None = 30
    test_images: bool = True
    shared_stores: bool = False
    suppress_days: int | None = None

    def __post_init__(self) -> None:
        for name in ("models_days", "suppress_days"):
            value = getattr(self, name)
            check(name, value, value is None or value >= 0, "at least 0, or null for ever")
