"""The trained network that the relearning tests make forget, and the packages that bring metrics."""

from __future__ import annotations

from method_fixtures import original
from plugin_fixtures import install

__all__ = ["install", "original"]
