"""Archives as people have them. See `awkward`."""

from __future__ import annotations

import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any

from awkward import Made, encoded, form, forms, pixels


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
    made.refused = "train/emu is a link, which cannot be followed inside an archive"


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
    made.refused = "train/emu is a link, which cannot be followed inside an archive"


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
