"""What is registered in the MLflow registry, and under which name."""

from __future__ import annotations

from dataclasses import dataclass

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.lineage.champions import CHAMPION, PREVIOUS


@dataclass(frozen=True, kw_only=True)
class RegistryParams:
    """enabled: whether the unlearned model is registered; ``megu process`` needs it.
    name: the registered model, and the MLflow experiment.
    alias: given to the new version.
    """

    __pydantic_config__ = STRICT

    enabled: bool = True
    name: str = "megu"
    alias: str = "challenger"

    def __post_init__(self) -> None:
        for key in ("name", "alias"):
            value = getattr(self, key)
            check(key, value, bool(value) and not set(value) & set("/:@"), "a name without / : @")
        moved = self.alias in (CHAMPION, PREVIOUS)
        check("alias", self.alias, not moved, f"another than {CHAMPION} and {PREVIOUS}, which `megu promote` moves")

    def required(self) -> None:
        """Raise `MeguError` where requests cannot be processed: what fulfils one is a version that becomes the champion."""
        if not self.enabled:
            raise MeguError(
                "registry.enabled is false, and a request is fulfilled by a registered version that becomes the champion",
                "set registry.enabled: true; `megu run` unlearns without a registry, and megu then follows no request",
            )
