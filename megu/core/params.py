"""Stage parameters: frozen dataclasses beside the code that uses them.

They need only the standard library, so the method runs where only torch and numpy are installed; `megu.config.tree` lets
pydantic validate the same classes when they come from a file. A parameters class looks like this::

    @dataclass(frozen=True, kw_only=True)
    class NoiseParams:
        __pydantic_config__ = STRICT

        steps: int = 40

        def __post_init__(self) -> None:
            check("steps", self.steps, self.steps >= 1, "at least 1")
"""

from __future__ import annotations

from typing import Any

#: Read by pydantic from ``__pydantic_config__``: an unknown key is refused, not ignored.
STRICT: dict[str, Any] = {"extra": "forbid"}


def check(name: str, value: object, holds: bool, rule: str) -> None:
    """Raise ``ValueError`` with the parameter, its value and the rule it breaks, unless ``holds``."""
    if not holds:
        raise ValueError(f"{name} = {value!r} is out of range: it must be {rule}")


class Means:
    """Mark a stage argument that says how to reach something, not what to compute: an address, a time-out.

    It is the only kind of argument that is not part of a result's cache key.
    """
