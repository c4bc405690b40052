"""Clutter: files and folders that systems leave everywhere and that are never part of a data set.

The same names are ignored when images are added, in the hash of a folder under ``data/``, and by DVC, which reads them from ``.dvcignore``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

#: From macOS, Windows, Linux desktops, network storage and notebooks; in ``.gitignore`` syntax, matched here without regard to case.
CLUTTER = (
    ".DS_Store",
    "._*",
    "__MACOSX",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".directory",
    ".Trash-*",
    "lost+found",
    ".nfs*",
    "@eaDir",
    "#recycle",
    ".ipynb_checkpoints",
)
HIDDEN = "other hidden files"

_FOLDED = tuple((pattern.casefold(), pattern) for pattern in CLUTTER)


def clutter(parts: Sequence[str]) -> str | None:
    """Return the pattern of `CLUTTER` that the first matching part of a path matches, `HIDDEN` for other hidden files, else None."""
    for part in parts:
        folded = part.casefold()
        for pattern, shown in _FOLDED:
            if fnmatchcase(folded, pattern):
                return shown
        if part.startswith(".") and part not in (".", ".."):
            return HIDDEN
    return None


def is_known_clutter(parts: Sequence[str]) -> bool:
    """Return whether a part of a path matches `CLUTTER` as DVC would match it: case-sensitively."""
    return any(fnmatchcase(part, pattern) for part in parts for pattern in CLUTTER)


def hide_from_dvc(root: Path) -> None:
    """Add the missing patterns of `CLUTTER` to ``<root>/.dvcignore``, if the folders that DVC hashes contain clutter."""
    found = (path.relative_to(root) for folder in ("data", "splits") for path in (root / folder).rglob("*"))
    if not any(is_known_clutter(path.parts) for path in found):
        return
    path = root / ".dvcignore"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = set(before.splitlines())
    if missing := [line for pattern in CLUTTER if (line := _line(pattern)) not in lines]:
        start = before if not before or before.endswith("\n") else before + "\n"
        path.write_text(start + "# What systems leave anywhere.\n" + "\n".join(missing) + "\n", encoding="utf-8")


def _line(pattern: str) -> str:
    return f"\\{pattern}" if pattern.startswith("#") else pattern
