"""Figures that a benchmark writes into a page itself, so that nobody types them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(document: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the document's markers of that name."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{document} has no {begin} … {end}")
    document.write_text("\n".join([before + begin, *lines, end]) + rest.partition(end)[2], encoding="utf-8")
