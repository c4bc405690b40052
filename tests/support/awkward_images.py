"""Image files as people have them. See `awkward`."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from awkward import HEIGHT, WIDTH, Made, encoded, form, forms, grey, on_white, pixels, png, scanlines, tiff
from PIL import Image

#: What a viewer does to the stored image for each EXIF orientation, and its inverse.
TURNED = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
INVERSE = {**TURNED, 6: TURNED[8], 8: TURNED[6]}


def _orientation(number: int) -> Any:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@forms("orientation", **{f"png_{n}": n for n in TURNED})
def _(made: Made, number: int) -> None:
    stored = np.ascontiguousarray(INVERSE[number](pixels(50)))
    made.put("0.png", encoded(stored, "png", exif=_orientation(number)), pixels(50))
    made.converted = {"turned upright by EXIF orientation": 1}


@forms("orientation", jpeg=("jpeg", {"quality": 95}), webp=("webp", {"lossless": True, "exact": True}), tiff=("tiff", {}))
def _(made: Made, how: tuple[str, dict[str, Any]]) -> None:
    kind, options = how
    stored = np.ascontiguousarray(INVERSE[6](pixels(50)))
    plain = np.asarray(Image.open(io.BytesIO(encoded(stored, kind, **options))).convert("RGB"))
    made.put(f"0.{kind}", encoded(stored, kind, exif=_orientation(6), **options), TURNED[6](plain))
    made.converted = {"turned upright by EXIF orientation": 1}


@form
def broken_exif(made: Made) -> None:
    made.put("0.png", encoded(pixels(50), "png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), pixels(50))


_DEEP = np.random.default_rng(7).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
_SIXTEEN = {"16 bits a channel to 8 (the upper ones)": 1}


@forms(
    "sixteen_bits",
    png=("0.png", png(b"\x10\0\0\0\0", scanlines(_DEEP.astype(">u2"))), _DEEP >> 8),
    tiff=("0.tif", tiff(_DEEP, 1), _DEEP >> 8),
    tiff_big_endian=("0.tif", tiff(_DEEP, 1, order=">"), _DEEP >> 8),
    pgm=("0.pgm", b"P5 4 3 65535\n" + _DEEP.astype(">u2").tobytes(), _DEEP >> 8),
    twelve=("0.tif", tiff(bytes([0x80, 0x0F, 0xFF] * 6), 1, bits=12), np.tile(np.array([0x80, 0xFF]), (3, 2))),
)
def _(made: Made, how: tuple[str, bytes, Any]) -> None:
    name, content, expected = how
    made.put(name, content, grey(expected.astype(np.uint8)))
    made.converted = _SIXTEEN


@form
def sixteen_bits_in_colour(made: Made) -> None:
    deep = np.random.default_rng(8).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    made.put("0.png", png(b"\x10\x02\0\0\0", scanlines(deep.astype(">u2"))), (deep >> 8).astype(np.uint8))
    made.converted = _SIXTEEN


@form
def sixteen_bits_with_a_transparent_colour(made: Made) -> None:
    made.put("0.png", png(b"\x10\0\0\0\0", scanlines(_DEEP.astype(">u2")), (b"tRNS", b"\x12\x34")))
    made.refused = "a transparent colour"


@forms(
    "integers",
    signed_32=tiff(np.arange(12, dtype=np.int32).reshape(3, 4) * 99999, 2),
    unsigned_32=tiff(np.arange(12, dtype=np.uint32).reshape(3, 4) * 99999, 1),
    signed_16=tiff(np.arange(12, dtype=np.int16).reshape(3, 4) * 999, 2),
)
def _(made: Made, content: bytes) -> None:
    made.put("0.tif", content)
    made.refused = "train/cat/0.tif: integers that are signed or of 32 bits"


_SHARES = np.random.default_rng(9).random((HEIGHT, WIDTH)).astype(np.float32)


@form
def floating_point(made: Made) -> None:
    made.put("0.tif", tiff(_SHARES, 3), grey(np.rint(_SHARES.astype(float) * 255).astype(np.uint8)))
    made.converted = {"floating point from [0, 1] to 8 bits": 1}


@forms("floating_point", beyond_1=_SHARES * 255, below_0=_SHARES - 1, nan=np.where(_SHARES > 0.5, np.nan, _SHARES))
def _(made: Made, values: Any) -> None:
    made.put("0.tif", tiff(values.astype(np.float32), 3))
    made.refused = "floating point outside [0, 1]"


@form
def floating_point_where_white_is_0(made: Made) -> None:
    made.put("0.tif", tiff(_SHARES, 3, photometric=0), grey(255 - np.rint(_SHARES.astype(float) * 255).astype(np.uint8)))
    made.converted = {"floating point from [0, 1] to 8 bits": 1}


_ALPHA = pixels(60, 1)[..., 0]
_WHITE = {"transparency laid on white": 1}


@forms("transparent", png=("png", {}), webp=("webp", {"lossless": True, "exact": True}), tiff=("tiff", {}))
def _(made: Made, how: tuple[str, dict[str, Any]]) -> None:
    kind, options = how
    made.put(f"0.{kind}", encoded(np.dstack([pixels(50), _ALPHA]), kind, **options), on_white(pixels(50), _ALPHA))
    made.converted = _WHITE


@form
def transparent_grey(made: Made) -> None:
    levels = pixels(51, 1)[..., 0]
    image = Image.merge("LA", [Image.fromarray(levels), Image.fromarray(_ALPHA)])
    made.put("0.png", encoded(image, "png"), on_white(grey(levels), _ALPHA))
    made.converted = _WHITE


_PALETTE = pixels(52).reshape(-1, 3)
_INDEX = np.arange(12, dtype=np.uint8).reshape(HEIGHT, WIDTH)


@form
def transparent_palette(made: Made) -> None:
    some = np.full(12, 255, dtype=np.uint8)
    some[[0, 5]] = 0, 100
    content = png(b"\x08\x03\0\0\0", scanlines(_INDEX), (b"PLTE", _PALETTE.tobytes()), (b"tRNS", some.tobytes()))
    made.put("0.png", content, on_white(_PALETTE[_INDEX], some[_INDEX]))
    made.converted = _WHITE


@form
def a_transparent_colour(made: Made) -> None:
    colour = pixels(53)
    expected = colour.copy()
    expected[1, 2] = 255
    key = struct.pack(">3H", *colour[1, 2].tolist())
    made.put("0.png", png(b"\x08\x02\0\0\0", scanlines(colour), (b"tRNS", key)), expected)
    made.converted = _WHITE


@form
def an_alpha_channel_without_transparency(made: Made) -> None:
    made.put("0.png", encoded(np.dstack([pixels(50), np.full((HEIGHT, WIDTH), 255, np.uint8)]), "png"), pixels(50))


@form
def a_palette(made: Made) -> None:
    made.put("0.png", png(b"\x08\x03\0\0\0", scanlines(_INDEX), (b"PLTE", _PALETTE.tobytes())), _PALETTE[_INDEX])


@form
def one_bit(made: Made) -> None:
    bits = pixels(54, 1)[..., 0] > 127
    made.put("0.png", encoded(Image.fromarray(bits), "png"), grey(bits.astype(np.uint8) * 255))


@form
def white_is_0_in_8_bits(made: Made) -> None:
    levels = pixels(55, 1)[..., 0]
    made.put("0.tif", tiff(levels, 1, photometric=0), grey(255 - levels))


@forms("frames", apng="png", webp="webp", tiff="tiff", mpo="mpo")
def _(made: Made, kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "webp" else {"quality": 95} if kind == "mpo" else {}
    more = [Image.fromarray(pixels(70)), Image.fromarray(pixels(71))]
    content = encoded(pixels(50), kind, save_all=True, append_images=more, **options)
    first = np.asarray(Image.open(io.BytesIO(encoded(pixels(50), "jpeg", quality=95)))) if kind == "mpo" else pixels(50)
    made.put("0.jpg" if kind == "mpo" else f"0.{kind}", content, first)
    made.converted = {"the first of several frames": 1}


@form
def frames_gif(made: Made) -> None:
    frames = [Image.fromarray(_INDEX + k) for k in range(3)]
    made.put("0.gif", encoded(frames[0], "gif", save_all=True, append_images=frames[1:]), grey(_INDEX))
    made.converted = {"the first of several frames": 1}


@form
def cmyk(made: Made) -> None:
    ink = pixels(56, 4)
    light = 255 - ink.astype(float)
    made.put(
        "0.tif", encoded(Image.fromarray(ink, "CMYK"), "tiff"), np.rint(light[..., :3] * light[..., 3:] / 255).astype(np.uint8)
    )
    made.converted = {"CMYK to RGB without a colour profile": 1}


@form
def lab(made: Made) -> None:
    made.put("0.tif", encoded(Image.fromarray(pixels(57), "LAB"), "tiff"))
    made.refused = "train/cat/0.tif: pixels of the kind LAB"


_JPEG = encoded(np.tile(pixels(58), (20, 20, 1)), "jpeg")


@forms(
    "not_an_image",
    text=b"hello",
    empty=b"",
    postscript=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\nshowpage\n",
    truncated=_JPEG[: len(_JPEG) // 2],
    damaged=encoded(pixels(1), "png").replace(b"IDAT", b"IDAT\0"),
    huge=png(b"\x08\x02\0\0\0", b"").replace(struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", 60000, 60000)),
)
def _(made: Made, content: bytes) -> None:
    made.put("0.jpg", content)
    made.refused = "1 of 5 files are not images that can be read: train/cat/0.jpg"


@form
def a_larger_image_without_a_size_to_bring_it_to(made: Made) -> None:
    made.put("0.png", encoded(np.zeros((9, 9, 3), np.uint8), "png"))
    made.refused = "bring all images to one size with --size"
