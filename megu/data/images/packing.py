"""The user's options for turning images into a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megu.core.errors import MeguError
from megu.data.naming import nfc
from megu.data.superclasses import parse_superclasses


@dataclass(frozen=True)
class Packing:
    """How class folders become arrays.

    Attributes
    ----------
    size: height and width in pixels of every image: the largest centred part with that shape is cut out and resized (bilinear,
        smoothed). None: all images must have one size.
    max_corrupt: the largest share of files, in [0, 1], that may be unreadable; they are left out and listed. More is an error.
    coarse_labels: label by superclass and also keep the finer labels.
    superclasses: {superclass: [class, ...]} where the images come without a ``superclasses.json``.
    only: the class folders to take; all others are ignored. Empty: all.
    per_class: the most images to take from each class folder, in train and in test. None: all.
    """

    size: tuple[int, int] | None = None
    max_corrupt: float = 0.0
    coarse_labels: bool = False
    superclasses: Mapping[str, Sequence[str]] | None = None
    only: tuple[str, ...] = ()
    per_class: int | None = None


def parse_packing(
    size: str | None,
    superclasses: Path | None,
    labels: str,
    max_corrupt: float,
    only: str | None = None,
    per_class: int | None = None,
) -> Packing:
    """Return a `Packing` from the command line's options. Raises `MeguError` for invalid ones."""
    if labels not in ("fine", "coarse"):
        raise MeguError(f"--labels {labels!r} is not known", "write fine or coarse")
    sides = [] if size is None else size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 1 <= int(side) <= 4096 for side in sides):
        raise MeguError(f"--size {size!r} is not a size", "write 32, or 24x32 (height x width), in pixels up to 4096")
    found = None
    if superclasses is not None:
        try:
            found = parse_superclasses(str(superclasses), superclasses.read_bytes())
        except OSError as error:
            raise MeguError(f"{superclasses} cannot be read ({error.strerror})", "check the path") from None
    classes = () if only is None else tuple(nfc(name.strip()) for name in only.split(","))
    if not all(classes):
        raise MeguError(f"--only {only!r} has an empty name", "write the class folders as CLASS,CLASS,…")
    shape = (int(sides[0]), int(sides[-1])) if sides else None
    return Packing(shape, max_corrupt, labels == "coarse", found, classes, per_class)


def reduced(packing: Packing) -> str:
    """Describe in words what `_taken` leaves; "" for everything."""
    classes = f"{len(set(packing.only))} class folders" if packing.only else ""
    number = f"at most {packing.per_class:,} images of each class and split" if packing.per_class else ""
    return ", ".join(filter(None, (classes, number)))
