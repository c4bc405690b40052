"""The trained network that the tests make forget."""

from __future__ import annotations

from method_fixtures import original

__all__ = ["original"]
