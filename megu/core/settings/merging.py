"""Project files that git left in the middle of a merge."""

from __future__ import annotations

import re
from pathlib import Path

from megu.core.errors import MeguError

_MARK = re.compile(r"^(<{7} .*|={7}|>{7} .*|\|{7} .*)$", re.MULTILINE)


def refuse(name: str, text: str) -> None:
    """Raise `MeguError` for text that contains merge conflict markers, with the line of the first."""
    if text.count("<" * 7) and text.count(">" * 7) and (found := _MARK.search(text)):
        line = text.count("\n", 0, found.start()) + 1
        raise MeguError(
            f"{name}, line {line}: a merge is not finished",
            "finish it: choose what stays, delete the marks, `git add` the file",
        )


def read_text(path: Path) -> str:
    """Return the text of a file. Raises `MeguError` as `refuse` does."""
    text = path.read_text(encoding="utf-8")
    refuse(path.name, text)
    return text
