"""Search buffers of any size for many byte strings at once: the bytes of images and the ids of samples.

For each string, eight pieces of eight bytes are indexed, one for each alignment to the 64-bit words of a buffer. Wherever a string lies, one
of its pieces is a whole word, so a buffer need only be read word by word, each looked up in a table. Only where a word is found are the
strings themselves compared: the cost hardly depends on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.data.arrays import Images

_WORD = 8
#: The shortest string that has a piece for each alignment.
SHORTEST = 2 * _WORD - 1
_BITS = 22
_MIX = np.uint64(0x9E3779B97F4A7C15)
#: Words of a buffer that are searched together; bounds the memory.
_CHUNK = 1 << 20
#: A piece in which fewer neighbours differ (as in a black or white square) would be found everywhere.
_CHANGES = 2


class Strings:
    """Finds any of N strings of one length. strings: uint8 (N, L), L at least `SHORTEST`. Strings that hardly vary are `flat`, and are not
    searched for."""

    def __init__(self, strings: NDArray[np.uint8]) -> None:
        self.strings = np.ascontiguousarray(strings)
        self.length = self.strings.shape[1]
        if self.length < SHORTEST:
            raise ValueError(f"strings of {self.length} bytes are too short: at least {SHORTEST}")
        changes = np.cumsum(np.diff(self.strings.astype(np.int16), axis=1, prepend=-1) != 0, axis=1, dtype=np.int32)
        varied = changes[:, _WORD - 1 :] - changes[:, : self.length - _WORD + 1]  # for the piece that begins there
        offsets = np.stack([_WORD * varied[:, place::_WORD].argmax(axis=1) + place for place in range(_WORD)], axis=1)
        usable = (np.take_along_axis(varied, offsets, axis=1) >= _CHANGES).all(axis=1)
        self.flat = np.flatnonzero(~usable)
        rows, offsets = np.flatnonzero(usable), offsets[usable]
        pieces = self.strings[rows[:, None, None], offsets[:, :, None] + np.arange(_WORD)]
        words = np.ascontiguousarray(pieces).view("<u8").ravel()
        order = np.argsort(words, kind="stable")
        self._words, self._rows, self._offsets = words[order], np.repeat(rows, _WORD)[order], offsets.ravel()[order]
        self._table = np.zeros(1 << _BITS, dtype=bool)
        self._table[_slots(self._words)] = True

    def find(self, buffer: Any) -> set[int]:
        """Return the numbers of the strings that occur in a buffer of bytes, at any offset."""
        data = np.frombuffer(buffer, dtype=np.uint8)
        words = data[: len(data) // _WORD * _WORD].view("<u8")
        found: set[int] = set()
        for start in range(0, len(words) if len(self._words) else 0, _CHUNK):
            chunk = words[start : start + _CHUNK]
            at = np.flatnonzero(self._table[_slots(chunk)])
            low = np.searchsorted(self._words, chunk[at], side="left")
            high = np.searchsorted(self._words, chunk[at], side="right")
            for place, begin, end in zip(at[high > low].tolist(), low[high > low], high[high > low], strict=True):
                for entry in range(begin, end):
                    row, origin = int(self._rows[entry]), (start + place) * _WORD - int(self._offsets[entry])
                    if row not in found and 0 <= origin <= len(data) - self.length:
                        there = data[origin : origin + self.length]
                        if np.array_equal(there, self.strings[row]):
                            found.add(row)
        return found


def _slots(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words * _MIX) >> np.uint64(64 - _BITS)


@dataclass(frozen=True)
class SearchPatterns:
    """What must not remain anywhere. images: uint8 (N, H, W, C), distinct. ids: "S32" (N,), theirs, and those of samples without an image.

    Raises ``ValueError`` for images too small to be distinguished from chance.
    """

    images: Images
    ids: NDArray[np.bytes_]
    _pixels: list[Strings] = field(init=False, repr=False)
    _names: Strings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        flat = self.images.reshape(len(self.images), -1)
        forms = [flat]
        if self.images.shape[3] > 1:  # channels first, as in tensors
            forms.append(np.ascontiguousarray(self.images.transpose(0, 3, 1, 2)).reshape(len(self.images), -1))
        object.__setattr__(self, "_pixels", [Strings(form) for form in forms])
        object.__setattr__(self, "_names", Strings(self.ids.astype("S32").view(np.uint8).reshape(-1, 32)))

    @property
    def flat(self) -> int:
        """Number of images of one shade, whose bytes may occur in any file: they are not searched for byte by byte."""
        return len(self._pixels[0].flat)

    def pixels_in(self, buffer: Any) -> set[int]:
        """Return the images whose rows of pixels are in a buffer, channels last or first."""
        return set[int]().union(*(strings.find(buffer) for strings in self._pixels))

    def ids_in(self, buffer: Any) -> set[int]:
        """Return the ids that occur in a buffer as text."""
        return self._names.find(buffer)
