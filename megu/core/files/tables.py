"""Tables as spreadsheets and programs write them. Ambiguous content is refused, with the line, and a message never repeats a value: it
may be a name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.settings import merging

_DELIMITERS = (",", ";", "\t", "|")


def decoded(content: bytes, name: str) -> str:
    """Decode text in UTF-8, with or without a byte order mark, or in UTF-16 with one, as spreadsheets write it."""
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MeguError(f"{name}, line {line}: the text is not UTF-8", "save it as UTF-8") from None
    if "\0" in text:
        raise MeguError(f"{name} contains characters that are not text", "save it as UTF-8")
    return text


def text_of(path: Path, largest: int) -> str:
    """Return the text of a file. Raises `MeguError` for a file of more than ``largest`` bytes, an unreadable one, or one with an
    unfinished merge."""
    try:
        if path.stat().st_size > largest:
            raise MeguError(f"{path.name} is larger than {largest >> 20} MB", "split it")
        text = decoded(path.read_bytes(), path.name)
    except OSError as error:
        raise MeguError(f"{path.name} cannot be read ({type(error).__name__})", "name a file that can be read") from None
    merging.refuse(path.name, text)
    return text


def table(text: str, name: str, known: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the headings, in lower case, and the non-empty rows with their line numbers. known: the headings that reveal the delimiter.

    The delimiter is a comma, a semicolon, a tab or a bar: the one that a line ``sep=`` names, or that yields the most known headings.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines, first = text, 1
    if given := re.match(r"\"?sep=(.)\"?[ \t]*\r?\n", text, re.IGNORECASE):
        lines, first = text[given.end() :], 2
        if given[1] not in _DELIMITERS:
            raise MeguError(f"{name}, line 1: this delimiter is not supported", "use a comma, a semicolon or a tab")
    head_line = next((line for line in lines.splitlines() if line.strip(' \t,;|"')), "")

    def hits(delimiter: str) -> int:
        return sum(cell.strip().lower() in known for cell in next(csv.reader([head_line], delimiter=delimiter), []))

    delimiter = given[1] if given else max(_DELIMITERS, key=hits)
    rows = list(_rows(lines, delimiter, name, first))
    if not rows:
        return [], []
    (at, cells), *body = rows
    heads = [cell.strip().lower() for cell in cells]
    while heads and not heads[-1]:
        heads.pop()
    if len(set(heads)) < len(heads):
        raise MeguError(f"{name}, line {at}: two columns have the same heading, or none", "give each column its own heading")
    for line, row in body:
        while len(row) > len(heads) and not row[-1].strip():
            row.pop()
        if len(row) != len(heads):
            raise MeguError(f"{name}, line {line} has {len(row)} columns, the first line has {len(heads)}", "correct it")
    return heads, body


def _rows(text: str, delimiter: str, name: str, first: int) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = first + reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise MeguError(f"{name}, line {line} is not CSV ({error})", "correct it") from None
        if any(cell.strip() for cell in row):
            yield line, row
