"""Folders, images, archives and names as people have them: a generator of files, each form with what has to come of it.

A form gets a small good set, spoils or adds something, and says what is expected: the same pixels wherever nothing is said, other ones where
`Made.images` has them, what ``meta.json`` counts, what is said, or the words of the refusal.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 3, 4
KEYS = ("train/cat/0", "train/cat/1", "train/dog/0", "test/cat/0", "test/dog/0")


def pixels(seed: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


@dataclass
class Made:
    """A good set in ``root`` and what is expected of it, for a form to change.

    source: what is added. images: path without ending -> pixels. ignored, converted, repeated: as in ``meta.json``. said: parts of lines.
    refused: a part of the refusal, "" where there is none. max_corrupt: as asked for.
    """

    root: Path
    source: Path | list[Path] = field(init=False)
    images: dict[str, Pixels] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    refused: str = ""
    max_corrupt: float = 0.0

    def __post_init__(self) -> None:
        self.source = self.root
        for seed, key in enumerate(KEYS):
            self.add(key, pixels(seed))

    def add(self, key: str, array: Pixels) -> Path:
        path = self.root / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        self.images[key] = array
        return path

    def put(self, name: str, content: bytes, expected: Pixels | None = None, key: str = "train/cat/0") -> None:
        """Put a file in the place of an image."""
        (self.root / f"{key}.png").unlink()
        (self.root / key).with_name(name).write_bytes(content)
        if expected is not None:
            self.images[key] = expected

    def zipped(self, name: str = "set.zip", **how: Any) -> Path:
        """The whole set as a zip, which becomes the source."""
        self.source = path = self.root.with_name(name)
        with zipfile.ZipFile(path, "w", **how) as archive:
            for file in sorted(self.root.rglob("*.png")):
                archive.write(file, file.relative_to(self.root))
        return path

    def tarred(self, name: str = "set.tar", mode: str = "w") -> Path:
        self.source = path = self.root.with_name(name)
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            archive.add(self.root, arcname="set")
        return path


Form = Callable[[Made], None]
FORMS: dict[str, Form] = {}


def form(made: Form) -> Form:
    FORMS[made.__name__] = made
    return made


def forms(name: str, **variants: Any) -> Callable[[Callable[[Made, Any], None]], None]:
    """One function, many forms."""

    def register(made: Callable[[Made, Any], None]) -> None:
        for variant, value in variants.items():
            FORMS[f"{name}_{variant}"] = lambda given, value=value: made(given, value)

    return register


def encoded(array: Any, kind: str, mode: str | None = None, **options: Any) -> bytes:
    target = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(target, kind, **options)
    return target.getvalue()


def tiff(values: Any, kind: int, *, photometric: int = 1, order: str = "<", bits: int = 0) -> bytes:
    """A plain TIFF of one channel. kind: 1 unsigned, 2 signed, 3 floating point. bits: of packed values."""
    data = values if isinstance(values, bytes) else np.asarray(values).astype(values.dtype.newbyteorder(order)).tobytes()
    depth = bits or values.dtype.itemsize * 8
    tags = [(256, WIDTH), (257, HEIGHT), (258, depth), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, HEIGHT), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + directory


def png(header: bytes, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks. header: depth, colour type and three zeros."""
    chunks = [(b"IHDR", struct.pack(">II", WIDTH, HEIGHT) + header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def scanlines(array: Any) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in array)


def on_white(colour: Pixels, alpha: Pixels) -> Pixels:
    share = alpha.astype(float)[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def grey(levels: Pixels) -> Pixels:
    return np.repeat(levels[..., None], 3, axis=2)


# --- images ------------------------------------------------------------------------------------------------------------------

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


# --- folders -----------------------------------------------------------------------------------------------------------------


@form
def a_link_as_class_folder(made: Made) -> None:
    outside = made.root.with_name("elsewhere")
    shutil.move(made.root / "train/dog", outside)
    (made.root / "train/dog").symlink_to(outside)


@form
def links_as_images(made: Made) -> None:
    outside = made.root.with_name("elsewhere.png")
    shutil.move(made.root / "train/dog/0.png", outside)
    (made.root / "train/dog/0.png").symlink_to(outside)


@form
def a_link_as_train(made: Made) -> None:
    shutil.move(made.root / "train", made.root.with_name("elsewhere"))
    (made.root / "train").symlink_to("../elsewhere")


@forms("links_in_a_circle", above="..", self=".", cat="../../train")
def _(made: Made, target: str) -> None:
    (made.root / "train/cat/loop").symlink_to(target)
    made.refused = "is a link to a folder that it is in itself"


@forms("a_link_that_leads_nowhere", image="train/cat/9.png", folder="train/emu")
def _(made: Made, where: str) -> None:
    (made.root / where).symlink_to("/no/such/place")
    made.refused = f"{where} is a link that leads nowhere"


@forms(
    "clutter",
    notebook=(".ipynb_checkpoints", "train/cat/.ipynb_checkpoints/0-checkpoint.png"),
    synology=("@eaDir", "train/cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.png"),
    finder=(".DS_Store", "train/.DS_Store"),
    windows=("Thumbs.db", "train/cat/thumbs.db"),
    windows_too=("desktop.ini", "test/desktop.ini"),
    mac_archive=("__MACOSX", "__MACOSX/train/cat/9.png"),
    apple_double=("._*", "train/cat/._0.png"),
    git=("other hidden files", ".git/train/cat/9.png"),
    hidden_image=("other hidden files", "train/cat/.9.png"),
    hidden_class=("other hidden files", "train/.emu/9.png"),
)
def _(made: Made, what: tuple[str, str]) -> None:
    kind, name = what
    path = made.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels(80), "png"))
    made.ignored = {kind: 1}
    made.said = [f"left out: 1 {kind} ({name})"]


@forms(
    "other_ending", heic=("*.heic", "9.HEIC"), none=("files without an ending", "9"), odd=("files of other endings", "9.a-b")
)
def _(made: Made, what: tuple[str, str]) -> None:
    kind, name = what
    (made.root / "train/cat" / name).write_bytes(encoded(pixels(80), "png"))
    made.ignored = {f"{kind} in class folders": 1}
    made.said = [f"train/cat/{name}"]


@form
def a_readme(made: Made) -> None:
    (made.root / "README.txt").write_text("hello")
    made.said = ["left out: 1 other files (README.txt)"]


@form
def a_pipe(made: Made) -> None:
    os.mkfifo(made.root / "train/cat/9.png")
    made.refused = "is neither a file nor a folder"


@forms("an_archive_inside", zip="train/cats.zip", seven="more.7z", rar="train/cat/cats.rar")
def _(made: Made, name: str) -> None:
    (made.root / name).write_bytes(b"")
    made.refused = f"{name} is an archive inside the data set"


@forms("capitals", ending=("train/cat/0.png", "train/cat/0.PNG"), folder=("train", "TRAIN"), test=("test", "Test"))
def _(made: Made, names: tuple[str, str]) -> None:
    (made.root / names[0]).rename(made.root / names[1])


@form
def two_spellings_of_train(made: Made) -> None:
    (made.root / "Train/emu").mkdir(parents=True)
    shutil.copy(made.root / "train/cat/0.png", made.root / "Train/emu")
    made.refused = "there are images under Train and train"


@forms("too_deep", below="train/cat/sub/9.png", above="train/9.png", beside="9.png")
def _(made: Made, name: str) -> None:
    (made.root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.root / "train/cat/0.png", made.root / name)
    made.refused = f"{name} is not in a class folder"


@form
def an_empty_class_folder(made: Made) -> None:
    (made.root / "train/emu").mkdir()
    made.said = ["no images in train/emu"]


@form
def a_class_without_test_images(made: Made) -> None:
    made.add("train/emu/0", pixels(90))
    made.said = ["no test images of 'emu'"]


@form
def the_same_image_in_train_and_test(made: Made) -> None:
    made.add("test/cat/7", made.images["train/cat/1"])
    made.repeated = {"in train and in test": 1}
    made.said = ["1 image is in train and in test (train/cat/1 = test/cat/7)"]


@form
def the_same_image_in_two_classes(made: Made) -> None:
    made.add("train/dog/7", made.images["train/cat/1"])
    made.repeated = {"in two classes": 1}
    made.said = ["1 image is in two classes (train/cat/1 = train/dog/7)"]


# --- names -------------------------------------------------------------------------------------------------------------------

_NFC, _NFD = (unicodedata.normalize(kind, "Café") for kind in ("NFC", "NFD"))


@form
def one_name_in_two_spellings(made: Made) -> None:
    """Train came from a Mac, test from Linux."""
    for seed, key in enumerate((f"train/{_NFD}/é", f"train/{_NFC}/1", f"test/{_NFC}/0")):
        made.add(key, pixels(100 + seed))
    made.images = {unicodedata.normalize("NFC", key): array for key, array in made.images.items()}


@form
def two_files_of_one_name_in_two_spellings(made: Made) -> None:
    for name in (_NFC, _NFD):
        shutil.copy(made.root / "train/cat/0.png", made.root / f"train/cat/{name}.png")
    made.refused = "are the same image file"


@form
def a_class_in_capitals_in_one_split(made: Made) -> None:
    (made.root / "test/cat").rename(made.root / "test/Cat")
    made.refused = "class folders 'Cat' and 'cat' differ in capitals only, and one has no train or no test images"


@form
def letters_and_capitals_as_classes(made: Made) -> None:
    for seed, split in enumerate(("train", "test")):
        made.add(f"{split}/A/0", pixels(110 + seed))
        made.add(f"{split}/a/0", pixels(120 + seed))
    made.said = ["classes 'A' and 'a' differ in capitals only"]


@forms(
    "name",
    emoji="🐈‍⬛",
    hebrew="חתול",
    joined="\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    device="con",
    null="nul",
    number="07",
    markup="<img src=x onerror=alert(1)>",
    formula="=cmd|' !A0",
    quotes='it\'s "so"',
    backslash="a\\b",
    dots="a..b",
    long="ü" * 127,
    blank_inside="polar bear",
)
def _(made: Made, name: str) -> None:
    for seed, split in enumerate(("train", "test")):
        made.add(f"{split}/{name}/0", pixels(130 + seed))


@forms(
    "bad_name",
    newline=("a\nb", "control character"),
    escape=("a\x1b[31mb", "control character"),
    line_separator=("a\u2028b", "control character"),
    turned=("a\u202eb", "turns the direction of writing"),
    blank_first=(" a", "begins or ends with a blank"),
    blank_last=("a\u00a0", "begins or ends with a blank"),
)
def _(made: Made, how: tuple[str, str]) -> None:
    name, reason = how
    made.add(f"train/{name}/0", pixels(140))
    made.refused = reason


@forms("bad_bytes", folder=b"train/caf\xe9/0.png", file=b"train/cat/caf\xe9.png")
def _(made: Made, name: bytes) -> None:
    path = os.path.join(os.fsencode(made.root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copyfile(os.fsencode(made.root / "train/cat/0.png"), path)
    made.refused = "name is not UTF-8"


@form
def a_file_name_with_a_line_break(made: Made) -> None:
    made.add("train/cat/a\nb", pixels(141))
    made.refused = r"train/cat/a\nb.png"


# --- archives ----------------------------------------------------------------------------------------------------------------


@forms("archive", zip="set.zip", capitals="SET.ZIP")
def _(made: Made, name: str) -> None:
    made.zipped(name)


@forms(
    "archive",
    tar=("set.tar", "w"),
    gz=("SET.TAR.GZ", "w:gz"),
    tgz=("set.tgz", "w:gz"),
    txz=("set.txz", "w:xz"),
    bz2=("a.tbz2", "w:bz2"),
)
def _(made: Made, how: tuple[str, str]) -> None:
    made.tarred(*how)


@form
def archives_in_a_folder(made: Made) -> None:
    folder = made.root.with_name("packed")
    folder.mkdir()
    shutil.move(made.zipped("ALL.ZIP"), folder)
    (folder / "._ALL.ZIP").write_bytes(b"x")
    made.source = folder
    made.ignored = {"._*": 1}


def _member(made: Made, name: str, **facts: Any) -> zipfile.ZipInfo:
    """A zip of the set with one more image by this name."""
    path = made.zipped()
    info = zipfile.ZipInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, encoded(pixels(150), "png"))
    return info


def _renamed(made: Made, name: bytes) -> None:
    """A zip with one more image whose name has these bytes, and no word on their code page."""
    stand_in = b"train/cat/" + b"x" * len(name) + b".png"
    _member(made, stand_in.decode())
    path = made.root.with_name("set.zip")
    path.write_bytes(path.read_bytes().replace(stand_in, b"train/cat/" + name + b".png"))


@form
def backslashes_in_a_zip(made: Made) -> None:
    _member(made, "set\\train\\cat\\9.png", create_system=0)
    made.images["train/cat/9"] = pixels(150)


@form
def a_folder_with_a_backslash_in_a_zip(made: Made) -> None:
    path = made.zipped()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo("train\\emu\\"), b"")
    made.said = ["no images in train/emu"]


@form
def an_absolute_path_in_a_zip(made: Made) -> None:
    _member(made, "/train/cat/9.png")
    made.images["train/cat/9"] = pixels(150)


@form
def a_drive_in_a_zip(made: Made) -> None:
    _member(made, "C:\\set\\train\\cat\\9.png", create_system=0)
    made.images["train/cat/9"] = pixels(150)


@form
def a_path_upwards_in_a_zip(made: Made) -> None:
    _member(made, "train/cat/../cat/9.png")
    made.refused = "has '..' in its name"


@form
def a_member_twice(made: Made) -> None:
    import warnings

    with warnings.catch_warnings(action="ignore"):
        _member(made, "train/cat/0.png")
    made.refused = "set.zip:train/cat/0.png is there twice"


@form
def a_link_in_a_zip(made: Made) -> None:
    _member(made, "train/emu", external_attr=0o120777 << 16)
    made.refused = "train/emu is a link, which an archive cannot be asked to follow"


@form
def a_name_of_300_bytes_in_a_zip(made: Made) -> None:
    _member(made, f"train/{'x' * 300}/9.png")
    made.refused = "the class folder's name has more than 255 bytes"


@form
def utf_8_in_a_zip_that_does_not_say_so(made: Made) -> None:
    _renamed(made, unicodedata.normalize("NFD", "Käse").encode())
    made.images["train/cat/Käse"] = pixels(150)


@form
def a_unicode_path_in_a_zip(made: Made) -> None:
    raw = "train/cat/\x81.png".encode("cp437", "replace")
    extra = struct.pack("<BI", 1, zlib.crc32(raw)) + "train/cat/ü.png".encode()
    info = zipfile.ZipInfo(raw.decode("ascii"))
    info.extra = struct.pack("<HH", 0x7075, len(extra)) + extra
    path = made.zipped()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, encoded(pixels(150), "png"))
    made.images["train/cat/?"] = pixels(150)  # an ASCII name is what it is


@forms("code_page", cp437="Käse".encode("cp437"), cp1252="Käse".encode("cp1252"), shift_jis="猫の写真".encode("shift_jis"))
def _(made: Made, name: bytes) -> None:
    _renamed(made, name)
    made.refused = "has a name in a code page that the archive does not tell"


@form
def an_encrypted_zip(made: Made) -> None:
    _patched(made, flag=1)
    made.refused = "is encrypted"


@form
def deflate_64(made: Made) -> None:
    _patched(made, method=9)
    made.refused = "is packed with Deflate64, which cannot be read here"


@form
def an_unknown_method(made: Made) -> None:
    _patched(made, method=97)
    made.refused = "is packed with method 97"


def _patched(made: Made, flag: int = 0, method: int | None = None) -> None:
    """A zip whose members say that they are packed otherwise."""
    content = bytearray(made.zipped().read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(sign)
        while start >= 0:
            content[start + at] |= flag
            if method is not None:
                content[start + at + 2] = method
            start = content.find(sign, start + 4)
    made.root.with_name("set.zip").write_bytes(bytes(content))


@form
def a_damaged_member(made: Made) -> None:
    path = made.zipped()
    content = path.read_bytes()
    at = content.find(b"IDAT") + 6
    path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    made.refused = "1 of 5 files are not images that can be read"


@forms("cut_short", zip=("set.zip", 0.7), tar=("set.tar", 0.5), tar_gz=("set.tar.gz", 0.7))
def _(made: Made, how: tuple[str, float]) -> None:
    name, share = how
    path = made.zipped() if name.endswith("zip") else made.tarred(name, "w:gz" if name.endswith("gz") else "w")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    made.refused = f"{name} is damaged or not an archive"


def _tar_of_members(made: Made) -> tuple[Path, list[tarfile.TarInfo]]:
    path = made.tarred()
    with tarfile.open(path) as tar:
        return path, tar.getmembers()


@form
def a_tar_cut_between_two_members(made: Made) -> None:
    path, members = _tar_of_members(made)
    path.write_bytes(path.read_bytes()[: members[-1].offset])
    made.refused = "it is cut short"


@form
def a_tar_with_a_broken_header(made: Made) -> None:
    path, members = _tar_of_members(made)
    content = bytearray(path.read_bytes())
    content[members[-1].offset + 10] ^= 1
    path.write_bytes(bytes(content))
    made.refused = "there is something after its end, or in place of a file"


@form
def two_tars_in_one(made: Made) -> None:
    path = made.tarred()
    path.write_bytes(path.read_bytes() * 2)
    made.refused = "there is something after its end"


def _in_tar(made: Made, name: str, kind: bytes, link: str = "") -> None:
    path = made.tarred()
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)


@form
def a_hard_link_in_a_tar(made: Made) -> None:
    _in_tar(made, "set/test/dog/9.png", tarfile.LNKTYPE, "set/test/dog/0.png")
    made.images["test/dog/9"] = made.images["test/dog/0"]


@form
def a_hard_link_to_nothing_in_a_tar(made: Made) -> None:
    _in_tar(made, "set/train/dog/9.png", tarfile.LNKTYPE, "../../etc/passwd")
    made.refused = "is a link to a file that the archive does not have"


@form
def a_link_in_a_tar(made: Made) -> None:
    _in_tar(made, "set/train/emu", tarfile.SYMTYPE, "/etc")
    made.refused = "train/emu is a link, which an archive cannot be asked to follow"


@form
def a_device_in_a_tar(made: Made) -> None:
    _in_tar(made, "set/train/cat/9.png", tarfile.CHRTYPE)
    made.refused = "is neither a file nor a folder"


@form
def bytes_in_a_tars_names(made: Made) -> None:
    path = made.root.with_name("set.tar")
    made.source = path
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.add(made.root, arcname="set")
        tar.add(made.root / "train/cat/0.png", arcname="set/train/café/0.png")
    made.refused = "the class folder's name is not UTF-8"


@form
def an_empty_zip(made: Made) -> None:
    made.source = made.root.with_name("set.zip")
    zipfile.ZipFile(made.source, "w").close()
    made.refused = "has no train images"


@forms("nothing_in", zip="set.zip", tar="set.tar", gz="set.tar.gz")
def _(made: Made, name: str) -> None:
    made.source = made.root.with_name(name)
    made.source.write_bytes(b"")
    made.refused = f"{name} is damaged or not an archive"


@form
def a_zip_in_a_zip(made: Made) -> None:
    _member(made, "train/cats.zip")
    made.refused = "set.zip:train/cats.zip is an archive inside the data set"


@forms("bomb", zip="zip", tar="tar")
def _(made: Made, kind: str) -> None:
    """Needs `archives._ROOM` to be small."""
    (made.root / "train/cat/9.png").write_bytes(bytes(1 << 20))
    path = made.zipped(compression=zipfile.ZIP_DEFLATED) if kind == "zip" else made.tarred("set.tar.gz", "w:gz")
    made.refused = f"{path.name} unpacks to more than"


@form
def a_zip_from_a_mac(made: Made) -> None:
    _member(made, "__MACOSX/train/cat/._0.png")
    made.ignored = {"__MACOSX": 1}


@form
def a_few_images_that_cannot_be_read(made: Made) -> None:
    made.put("0.tif", b"no")
    del made.images["train/cat/0"]
    made.max_corrupt = 0.2


@form
def a_folder_twice(made: Made) -> None:
    made.source = [made.root, made.root]
    made.refused = "/cat/0.png is there twice"


@form
def an_archive_beside_what_it_holds(made: Made) -> None:
    shutil.move(made.zipped(), made.root)
    made.source = made.root
    made.refused = "are the same image file"
