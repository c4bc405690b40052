"""The section ``purge`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from megu.core.params import STRICT, check


@dataclass(frozen=True, kw_only=True)
class PurgeParams:
    """models_days: days after a run for which superseded models that knew the samples are kept for a rollback; 0 erases them at once,
        null never.
    test_images: whether a request for a class or sub-class erases its test images too.
    shared_stores: whether no other project uses the DVC cache and remotes outside the project's folder, nor a shared cache
        (``cache.shared``): only then is anything removed from them.
    suppress_days: days for which erased samples are recognised when they are offered again (`megu.suppression`); 0 not at all, null for
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
