"""Matching images against a suppression list. Needs the list, the key, NumPy and cryptography; no project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.data.arrays import Images, image_ids
from megu.data.images import near
from megu.data.images.decoding import brought_to, middle
from megu.data.writing import chunks
from megu.lineage.commitments import SIZE, commit
from megu.lineage.keys import read_commitment_key
from megu.suppression.record import Header, Record, parse

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """certain, suspected: for each image the number of the record that has it, -1 for none; int64 (N,). A certain image is not also
    suspected."""

    certain: Numbers
    suspected: Numbers


class SuppressionList:
    """A list that was opened with its key. headers: its records, without those that have expired.

    An image is *certain* when its pixels are those of an erased sample: as it is, as grey where all its channels are equal, or brought to the
    size of the erased ones as `megu data add --size` does it. It is *suspected* when its perceptual hash is close to that of an erased sample
    (`megu.data.images.near`): another size or quality of it, or an image much like it. A person should look at what is suspected.
    """

    def __init__(self, records: Sequence[Record], key: bytes, today: date | None = None) -> None:
        """Open the records. Raises `MeguError` for a wrong key, or a record that was changed."""
        now = today or datetime.now(UTC).date()
        self._key = key
        self._records = [record for record in records if not record.header.expired(now)]
        self.headers: list[Header] = [record.header for record in self._records]
        opened = [record.opened(key) for record in self._records]
        self._exact = _Exact([commitments for commitments, _ in opened])
        self._near: dict[tuple[int, int], tuple[near.NearIndex, Numbers]] = {}
        for form in {(header.shape[0], header.shape[1]) for header in self.headers}:
            own = [number for number, header in enumerate(self.headers) if (header.shape[0], header.shape[1]) == form]
            hashes = [opened[number][1] for number in own]
            numbers = np.repeat(np.array(own), [len(entry) for entry in hashes])
            self._near[form] = (near.NearIndex(np.concatenate(hashes)), numbers)

    @classmethod
    def read(cls, path: Path, key: Path) -> SuppressionList:
        """Open an exported list. key: the project's ``.megu/keys/commitments.key``.

        Raises `MeguError` for files that cannot be read, a wrong key, or a list that was changed.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MeguError(f"{path} cannot be read ({error.strerror})", "name the file of `megu suppress export`") from None
        return cls(parse(content, str(path)), read_commitment_key(key))

    def __len__(self) -> int:
        """Return how many samples were erased."""
        return sum(header.samples for header in self.headers)

    def find(self, images: Images) -> Matches:
        """Match images, uint8 (N, H, W, C), with one channel or three."""
        certain, suspected = (np.full(len(images), -1, dtype=np.int64) for _ in range(2))
        start = 0
        for part in chunks(images) if self.headers else ():
            certain[start : start + len(part)], suspected[start : start + len(part)] = self._find(part)
            start += len(part)
        return Matches(certain, suspected)

    def find_ids(self, ids: Sequence[bytes]) -> Numbers:
        """Match sample ids (`megu.data.arrays.image_ids`). Return the same as `Matches.certain`."""
        return self._exact.find([commit(self._key, bytes(value)) for value in ids])

    def _find(self, images: Images) -> tuple[Numbers, Numbers]:
        certain = self.find_ids(image_ids(images).tolist())
        suspected = np.full(len(images), -1, dtype=np.int64)
        height, width = images.shape[1:3]
        smaller = [size for size in self._near if size != (height, width) and size[0] <= height and size[1] <= width]
        for size in ((height, width), *smaller):
            self._fill(certain, images, size, np.flatnonzero(certain < 0))
            if images.shape[3] == 3:
                self._fill(certain, images[..., :1], size, np.flatnonzero((certain < 0) & is_grey(images)))
        left = np.flatnonzero(certain < 0)
        for shape, (index, numbers) in self._near.items():
            box = middle((images.shape[2], images.shape[1]), shape)
            rows = images[left][:, box[1] : box[3], box[0] : box[2]]
            at = index.find(near.strengths(rows))
            suspected[left[at >= 0]] = numbers[at[at >= 0]]
        return certain, suspected

    def _fill(self, certain: Numbers, images: Images, size: tuple[int, int], rows: Numbers) -> None:
        """Match some rows of images, brought to a size (height, width)."""
        if len(rows):
            certain[rows] = self.find_ids(image_ids(_in_size(images[rows], size)).tolist())


def is_grey(images: Images) -> NDArray[np.bool_]:
    """Return which images (N, H, W, C) have one channel, or equal channels: bool (N,)."""
    return np.asarray((images == images[..., :1]).all(axis=(1, 2, 3)))


class _Exact:
    """Finds which of many sets a commitment is in."""

    def __init__(self, sets: Sequence[Sequence[bytes]]) -> None:
        joined = np.frombuffer(b"".join(entry for entries in sets for entry in entries), dtype=">u8").reshape(-1, SIZE // 8)
        numbers = np.repeat(np.arange(len(sets)), [len(entries) for entries in sets])
        order = np.argsort(joined[:, 0], kind="stable")
        self._rows, self._numbers = joined[order], numbers[order]

    def find(self, commitments: Sequence[bytes]) -> Numbers:
        found = np.full(len(commitments), -1, dtype=np.int64)
        if not len(self._rows) or not commitments:
            return found
        wanted = np.frombuffer(b"".join(commitments), dtype=">u8").reshape(-1, SIZE // 8)
        # For searching, the first 8 of 32 bytes are as good as all; the rest is compared.
        at = np.minimum(np.searchsorted(self._rows[:, 0], wanted[:, 0]), len(self._rows) - 1)
        same = (self._rows[at] == wanted).all(axis=1)
        found[same] = self._numbers[at[same]]
        return found


def _in_size(images: Images, size: tuple[int, int]) -> Images:
    """Return images as `megu data add --size` brings them to a size (height, width)."""
    if images.shape[1:3] == size:
        return images
    from PIL import Image

    pictures = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    return np.stack([np.asarray(brought_to(picture, size)) for picture in pictures]).reshape(
        len(images), *size, images.shape[3]
    )
