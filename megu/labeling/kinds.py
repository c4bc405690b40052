"""Which labelers there are, and the parameters of each. Adding one is: write its file and its stage, add its entry here."""

from __future__ import annotations

from typing import Any

from megu.labeling.ollama.params import OllamaParams
from megu.labeling.prototype import PrototypeParams

KINDS: dict[str, type[Any]] = {"prototype": PrototypeParams, "ollama": OllamaParams}


def labelers() -> dict[str, type[Any]]:
    """Every labeler by name, with the class of its parameters."""
    return dict(KINDS)
