"""Text files that people read and change too: of a project, of DVC."""

from __future__ import annotations

from pathlib import Path

from megu.core.files.store import writing


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all, its lines as they are. It keeps its mode; a new one is for everybody to read, as others are.
    Where ``target`` is a link, what it points at is written. Raises `MeguError` as `megu.core.files.store.writing` does."""
    target = target.resolve()
    with writing(target) as path:
        path.write_bytes(text.encode())
        path.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
