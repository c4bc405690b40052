"""Decode one image file to pixels, and report what had to be done to it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from megu.core.errors import MeguError
from megu.data.arrays import Images

UPRIGHT = "turned upright by EXIF orientation"
ON_WHITE = "transparency laid on white"
FIRST_FRAME = "the first of several frames"
SIXTEEN = "16 bits a channel to 8 (the upper ones)"
FLOAT = "floating point from [0, 1] to 8 bits"
CMYK = "CMYK to RGB without a colour profile"

#: Recognised by content, whatever the file extension. Pillow supports more formats, some of which start other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262


class _Unreadable(Exception):
    """The image cannot be read; the message says why, in a few words."""


def readable(read: Callable[[], bytes], size: tuple[int, int] | None) -> tuple[Images, tuple[str, ...]] | str:
    """Return an image (H, W, C) and what was done to it, or why it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read()), formats=_formats()) as image:
            return _pixels(image, size)
    except UnidentifiedImageError:
        return "not an image"
    except OSError as error:
        # Without the path that the system adds.
        return error.strerror or _line(error)
    # Decoders meet files from anybody, and can raise nearly any exception.
    except Exception as error:
        return _line(error)


@cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints what we report ourselves
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def decoded(path: Path, size: tuple[int, int]) -> Images:
    """Decode one image file as a data set of this size (height, width) stores it: uint8 (H, W, C).

    Raises `MeguError` when it is not a readable image.
    """
    found = readable(path.read_bytes, size)
    if isinstance(found, str):
        raise MeguError(f"{path} cannot be read: {found}", "name an image file")
    return found[0]


def as_added(image: Any) -> Images | None:
    """Return an open image as a data set stores it (H, W, C), where Pillow's own conversion differs; None for an image that is refused."""
    try:
        return _pixels(image, None)[0] if _is_special(image) else None
    except _Unreadable:
        return None


def _is_special(image: Any) -> bool:
    return image.mode in _WITH_ALPHA or image.mode.startswith(("I", "F")) or "transparency" in image.info


def _pixels(image: Any, size: tuple[int, int] | None) -> tuple[Images, tuple[str, ...]]:
    """Return uint8 (H, W, C), one channel for grey images and three for all others, and what was done."""
    raw = _raw_mode(image)  # before the image is loaded
    done = [FIRST_FRAME] if _frames(image) > 1 else []
    turned_by_pillow = image.format == "TIFF"  # when it loads them; others may have to be loaded before their EXIF is available
    orientation = _orientation(image) if turned_by_pillow else 1
    image.load()
    orientation = orientation if turned_by_pillow else _orientation(image)
    plain, more = _plain(image, raw)
    if (turn := _turns().get(orientation)) is not None:
        done.append(UPRIGHT)
        plain = plain if turned_by_pillow else plain.transpose(turn)
    if size is not None:
        plain = brought_to(plain, size)
    array: Images = np.asarray(plain)
    return array[..., None] if array.ndim == 2 else array, (*done, *more)


def brought_to(plain: Any, size: tuple[int, int]) -> Any:
    """Bring a Pillow image to another size (height, width): crop its middle to that shape and resize it."""
    from PIL import Image

    if plain.size == size[::-1]:
        return plain
    return plain.crop(middle(plain.size, size)).resize(size[::-1], Image.Resampling.BILINEAR)


def _plain(image: Any, raw: str) -> tuple[Any, list[str]]:
    """Return a loaded image in mode L or RGB, and what was done. raw: the pixel format of the file."""
    from PIL import Image

    grey = image.mode in ("1", "L", "LA", "La")
    inverted = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0
    if image.mode.startswith(("I", "F")):
        if "transparency" in image.info:
            raise _Unreadable("more than 8 bits and a transparent colour: make it 8 bits")
        levels, scaled = _float_levels(image) if image.mode == "F" else _integer_levels(image, raw)
        return Image.fromarray(255 - levels if inverted else levels), [scaled]
    done = [SIXTEEN] if ";16" in raw and not raw.startswith("BGR") else []  # BGR;16: 16 bits a pixel
    if _is_special(image):
        with_alpha = image.convert("LA" if grey else "RGBA")
        alpha = np.asarray(with_alpha)[..., -1:].astype(np.uint32)
        if alpha.min() < 255:
            colour = np.asarray(with_alpha)[..., :-1].astype(np.uint32)
            laid = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
            return Image.fromarray(laid[..., 0] if grey else laid), [*done, ON_WHITE]
        return with_alpha.convert("L" if grey else "RGB"), done
    if image.mode == "CMYK":
        done.append(CMYK)
    elif image.mode not in ("1", "L", "P", "RGB", "RGBX", "YCbCr"):
        raise _Unreadable(f"pixels of the kind {image.mode}: make it grey or RGB")
    return image.convert("L" if grey else "RGB"), done


def _integer_levels(image: Any, raw: str) -> tuple[Images, str]:
    """Return the upper 8 of 16 bits. With more bits, or signed ones, the value of white is unknown."""
    levels = np.asarray(image)
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")):
        raise _Unreadable("integers that are signed or of 32 bits, with no known white: make it 8 or 16 bits")
    return (levels >> (4 if raw == "I;12" else 8)).astype(np.uint8), SIXTEEN


def _float_levels(image: Any) -> tuple[Images, str]:
    levels = np.asarray(image)
    if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 1):
        raise _Unreadable("floating point outside [0, 1], with no known white: scale it, or make it 8 bits")
    return np.floor(levels.astype(np.float64) * 255 + 0.5).astype(np.uint8), FLOAT


def _frames(image: Any) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    # A later frame is damaged; the first may be intact.
    except Exception:
        image.seek(0)
        return 2


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # Unreadable EXIF is ignored, as viewers do.
    except Exception:
        return 1


def _raw_mode(image: Any) -> str:
    """Return the pixel format of the file by Pillow's name, such as "RGB;16B"."""
    arguments = image.tile[0][3] if getattr(image, "tile", None) else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _turns() -> dict[int, Any]:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest centred box (left, top, right, bottom) of an image of ``size`` (width, height) with the shape (height, width)."""
    width, height = size
    across = min(width, max(round(height * shape[1] / shape[0]), 1))
    down = min(height, max(round(width * shape[0] / shape[1]), 1))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
