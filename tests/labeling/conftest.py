"""The fixture of the plugins' tests."""

from __future__ import annotations

from plugin_fixtures import install

__all__ = ["install"]
