"""One image file as pixels."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megu.data.arrays import Images
from megu.errors import MeguError


def readable(read: Callable[[], bytes], size: tuple[int, int] | None) -> Images | str:
    """An image (H, W, C), or why it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read())) as image:
            return _pixels(image, size)
    except UnidentifiedImageError:
        return "not an image"
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def decoded(path: Path, size: tuple[int, int]) -> Images:
    """One image file in the form that a data set of this size (height, width) has it: uint8 (H, W, C).

    Raises `MeguError` when it is not an image that can be read.
    """
    found = readable(path.read_bytes, size)
    if isinstance(found, str):
        raise MeguError(f"{path} cannot be read: {found}", "name an image file")
    return found


def _pixels(image: Any, size: tuple[int, int] | None) -> Images:
    """uint8 (H, W, C): one channel for grey images (16-bit ones lose their lower byte), three for all others."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if size is not None and plain.size != size[::-1]:
        plain = plain.crop(_middle(plain.size, size)).resize(size[::-1], Image.Resampling.BILINEAR)
    array: Images = np.asarray(plain)
    return array[..., None] if array.ndim == 2 else array


def _middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) in the middle of an image of ``size`` (width, height) with the shape of (height, width)."""
    width, height = size
    across = min(width, max(round(height * shape[1] / shape[0]), 1))
    down = min(height, max(round(width * shape[0] / shape[1]), 1))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
