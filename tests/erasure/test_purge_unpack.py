"""What cannot be read is named, and hides nothing of the rest."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import resource
import sqlite3
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from purge_fixtures import encoded, garments, patterns

from megu.core.project import Project
from megu.erasure.search import unpack
from megu.erasure.search.scan import Found, Scanner, inspect
from megu.lineage.purged import locations as places

IMAGES = garments(4)
PNG = encoded(IMAGES[1])


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(patterns(IMAGES))


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, zlib.compress(content) if name == "x" else content)
    return packed.getvalue()


def tarred(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def with_flag(content: bytes, flag: int) -> bytes:
    """The first member's flags changed, in its own header and in the directory."""
    changed = bytearray(content)
    changed[6] |= flag
    changed[changed.index(b"PK\x01\x02") + 8] |= flag
    return bytes(changed)


def with_method(content: bytes, method: int) -> bytes:
    changed = bytearray(content)
    changed[8] = method
    changed[changed.index(b"PK\x01\x02") + 10] = method
    return bytes(changed)


def broken(content: bytes, what: bytes) -> bytes:
    """One byte of what is packed is another."""
    at = content.index(what) + len(what) // 2
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


TEXT = b"some text that is of no interest here " * 8

#: What is packed with one bad member before the image, and how the bad one is named.
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted in a zip": (lambda: with_flag(zipped(a=TEXT, b=PNG), 1), "a: encrypted"),
    "Deflate64 in a zip": (lambda: with_method(zipped(a=TEXT, b=PNG), 9), "a: That compression method is not supported"),
    "broken in a zip": (lambda: broken(zipped(a=TEXT, b=PNG), TEXT), "a: Bad CRC-32"),
    "broken gzip in a zip": (lambda: zipped(a=gzip.compress(TEXT)[:40], b=PNG), "a: Compressed file ended"),
    "broken gzip in a tar": (lambda: tarred(a=broken(gzip.compress(TEXT), gzip.compress(TEXT)[10:-8]), b=PNG), "a: "),
    "broken xz in a tar": (lambda: tarred(a=lzma.compress(TEXT)[:-8], b=PNG), "a: Compressed file ended"),
    "broken header in a tar": (lambda: tarred(a=TEXT, c=TEXT, b=PNG).replace(b"c\0\0", b"?\0\0"), ": what follows a is no tar"),
    "broken picture": (lambda: zipped(**{"a.png": PNG[:60], "b": PNG}), "a.png: "),
    "a text that is called a picture": (lambda: tarred(**{"a.jpg": TEXT, "b": PNG}), "a.jpg: no picture that can be decoded"),
    "an iPhone's picture": (lambda: tarred(**{"a.HEIC": b"\0\0\0\x18ftypheic", "b": PNG}), "a.HEIC: no picture"),
    "zip in zip": (lambda: zipped(c=with_flag(zipped(a=TEXT, b=PNG), 1)), "c/a: encrypted"),
    "in gzip": (lambda: gzip.compress(tarred(a=with_flag(zipped(d=TEXT), 1), b=PNG)), "a/d: encrypted"),
    "in bzip2": (lambda: bz2.compress(tarred(a=b"Rar!\x1a\x07\x01\0", b=PNG)), "a: packed by RAR"),
    "in xz": (lambda: lzma.compress(tarred(a=b"7z\xbc\xaf\x27\x1c", b=PNG)), "a: packed by 7-Zip"),
    "too deep": (lambda: zipped(a=zipped(a=zipped(a=zipped(a=TEXT))), b=PNG), "a/a/a: packed more than 3 deep"),
    "what follows in a gzip": (lambda: gzip.compress(PNG) + b"more", ": Not a gzipped file"),
    "a broken database": (
        lambda: zipped(**{"a.db": b"SQLite format 3\0" + TEXT * 20, "b": PNG}),
        "a.db: a database that cannot be read",
    ),
}


@pytest.mark.parametrize("form", BAD)
def test_a_bad_member_is_named_and_hides_no_other(scanner: Scanner, tmp_path: Path, form: str) -> None:
    making, named = BAD[form]
    path = tmp_path / "archive"
    path.write_bytes(making())
    found = scanner.file(path)
    assert found.copies == {1}, "the image beside it is found"
    (said,) = found.unreadable
    assert said.startswith(named)
    assert f"unreadable: {said.removeprefix(': ')}" in str(found)


def test_an_archive_that_is_whole_leaves_no_doubt(scanner: Scanner) -> None:
    for content in (zipped(a=TEXT, b=PNG), tarred(a=TEXT, b=PNG), gzip.compress(PNG) + gzip.compress(TEXT), zipped(), b""):
        assert not scanner.content(content).doubtful
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a", PNG)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", TEXT)
    assert scanner.content(twice.getvalue()) == Found(copies=frozenset({1})), "of two files of one name both are looked into"
    assert scanner.content(tarred(a=PNG) + tarred(a=encoded(IMAGES[2]))).copies == {1, 2}


def test_a_cut_archive_is_named_and_its_beginning_looked_into(scanner: Scanner) -> None:
    packed = tarred(b=PNG, a=TEXT)
    for cut in (zipped(b=PNG, a=TEXT)[:-60], packed[: packed.index(TEXT) + 20], gzip.compress(IMAGES[1].tobytes() * 9)[:-9]):
        found = scanner.content(cut)
        assert found
        assert found.unreadable


def test_every_picture_of_an_animation_is_looked_at(scanner: Scanner) -> None:
    from PIL import Image

    frames = [Image.fromarray(garments(1, seed=9)[0, ..., 0]), Image.fromarray(IMAGES[3][..., 0])]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        content = io.BytesIO()
        frames[0].save(content, form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {}))
        assert scanner.content(content.getvalue()).copies == {3}, form


def test_a_bomb_is_named_and_fills_no_memory(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_AT_LEAST", 1 << 23)
    monkeypatch.setattr(unpack, "_IN_MEMORY", 1 << 20)
    zeros = zlib.compressobj(9, wbits=31)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(64)) + zeros.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    found = scanner.content(tarred(a=bomb, b=PNG))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (said,) = found.unreadable
    assert said.startswith("a: it unpacks to more than is looked into, and what follows was not")
    assert peak < 24 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_picture_of_too_many_pixels_is_named(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megu.erasure.search.pictures._PIXELS", 28 * 28 - 1)
    assert scanner.content(PNG) == Found(unreadable=frozenset({": it has more pixels than are looked at"}))


def test_what_may_not_be_read_is_named_and_not_passed_over(
    scanner: Scanner, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def denied(path: Path, *arguments: object, **named: object) -> object:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)  # type: ignore[call-overload]

    (project.root / "secret").write_bytes(PNG)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        assert inspect([scanner], project.root / "secret") == (Found(unreadable=frozenset({": Permission denied"})), None)
    folder = project.root / "closed"
    folder.mkdir()
    listing = places.os.scandir

    def closed(path: object) -> object:
        if str(path) == str(folder.resolve()):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)  # type: ignore[call-overload]

    monkeypatch.setattr(places.os, "scandir", closed)
    assert (places.OTHERS, folder.resolve()) in [(surface, path) for surface, path in places.files(project)]
    assert inspect([scanner], folder)[0].unreadable


def test_a_broken_table_is_named_and_the_others_are_read(scanner: Scanner, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with sqlite3.connect(path) as opened:
        opened.execute('CREATE TABLE "odd ""name" (data BLOB)')
        opened.execute('INSERT INTO "odd ""name" VALUES (?)', (PNG,))
        opened.execute("CREATE TABLE broken (data BLOB)")
        opened.executemany("INSERT INTO broken VALUES (?)", [(TEXT,)] * 100)
        (page,) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'broken'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : (page - 1) * 4096 + 100] = b"\xee" * 100
    path.write_bytes(content)
    found = scanner.file(path)
    assert found.copies == {1}
    (said,) = found.unreadable
    assert said.startswith("broken: cannot be read (database disk image is malformed)")
