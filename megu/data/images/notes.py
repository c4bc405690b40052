"""Notes on the way from files to a data set: counts for ``meta.json``, with a few names for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from megu.data.images.clutter import clutter
from megu.data.images.layout import File, in_class_folder
from megu.data.naming import shown

#: How many names of each kind are shown.
_SHOWN = 3
#: The longest file extension, in characters, that is shown.
_ENDING = 12


class Notes:
    """Counts by kind.

    Attributes
    ----------
    ignored: files that are left out: clutter, and files in class folders without an image's extension.
    others: files left out elsewhere, such as a README. They are not part of the data set's description.
    converted: what was done to images, see `megu.data.images.decoding`.
    remarks: complete lines.
    """

    def __init__(self) -> None:
        self.ignored, self.others, self.converted = Counter[str](), Counter[str](), Counter[str]()
        self.remarks: list[str] = []
        self._named: dict[str, list[str]] = {}

    def left_out(self, file: File) -> None:
        """Count a file that is not a sample."""
        path = PurePosixPath(file.name)
        kind = clutter(path.parts)
        if kind or in_class_folder(file.name):
            self._count(self.ignored, kind or f"{_ending(path)} in class folders", file.name)
        else:
            self._count(self.others, "other files", file.name)

    def did(self, kind: str, name: str) -> None:
        """Count an image that something was done to."""
        self._count(self.converted, kind, name)

    def _count(self, counts: Counter[str], kind: str, name: str) -> None:
        counts[kind] += 1
        if counts[kind] <= _SHOWN:
            self._named.setdefault(kind, []).append(shown(name))

    def lines(self) -> Iterator[str]:
        """Yield all notes, one line per kind."""
        for kind, count in sorted((self.ignored + self.others).items()):
            yield f"left out: {count:,} {kind} ({self._examples(kind, count)})"
        for kind, count in sorted(self.converted.items()):
            yield f"{count:,} {'image' if count == 1 else 'images'}: {kind} ({self._examples(kind, count)})"
        yield from self.remarks

    def _examples(self, kind: str, count: int) -> str:
        return ", ".join(self._named[kind]) + (", …" if count > _SHOWN else "")


def _ending(path: PurePosixPath) -> str:
    ending = path.suffix.lower()
    if not ending:
        return "files without an ending"
    return (
        f"*{ending}" if ending[1:].isascii() and ending[1:].isalnum() and len(ending) <= _ENDING else "files of other endings"
    )
