"""The unlearning methods. Adding one is: write its file, add its entry here, and nothing else."""

from __future__ import annotations

from megu.methods import megu
from megu.methods.context import Context, Method

METHODS: dict[str, Method] = {
    "megu": Method(megu.MeguParams, megu.unlearn),
}

__all__ = ["METHODS", "Context", "Method"]
