"""The fixtures of the methods' tests."""

from __future__ import annotations

from method_fixtures import float32, original

__all__ = ["float32", "original"]
