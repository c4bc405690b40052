"""What flow runs are called in Prefect's pages: what they do ("forget Sneaker"), not two drawn words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect.runtime import flow_run

from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core.escaping import plain
from megu.core.project import find
from megu.data.scope import RequestScope

#: So many characters; a request may name a hundred classes.
LONGEST = 100


def forget() -> str:
    return _of_config("unlearn", lambda config: f"forget {RequestScope.of(vars(config.forget))}")


def label() -> str:
    return _of_config("label", lambda config: f"label {config.data.name}")


def bench() -> str:
    return _short(f"bench {Path(flow_run.parameters.get('file', '')).stem}")


def promote() -> str:
    version = flow_run.parameters.get("version")
    return _of_config(
        "promote", lambda config: f"promote {config.registry.name} version {version}" if version else "promote the challenger"
    )


def _of_config(otherwise: str, name: Callable[[Config], str]) -> str:
    """otherwise: where the configuration cannot be read, of which the flow itself says what is wrong."""
    asked = flow_run.parameters
    try:
        config = configuration.load(find().root / asked.get("params", "params.yaml"), asked.get("settings") or [])
    except Exception:
        return otherwise
    return _short(name(config))


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
