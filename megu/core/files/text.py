"""Text files that people read and edit too: the project's, DVC's."""

from __future__ import annotations

from pathlib import Path

from megu.core.files.store import writing


def write_text(target: Path, text: str) -> None:
    """Write a text file whole or not at all, line endings unchanged. It keeps its mode; a new one is readable by everybody, like other
    new files. If ``target`` is a link, its target is written. Raises `MeguError` as `megu.core.files.store.writing` does."""
    target = target.resolve()
    with writing(target) as path:
        path.write_bytes(text.encode())
        path.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
