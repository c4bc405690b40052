"""The sentences of a request's page: one file per language, ``languages/<code>.yaml``, so that others can add theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import yaml

from megu.core.errors import MeguError


@dataclass(frozen=True)
class Language:
    """code: as in the file's name ("en"). name: in the language itself. months: their names. dates, times: patterns for both. thousands,
    decimal: the separators used in numbers. sentences: by name, with ``str.format`` placeholders."""

    code: str
    name: str
    months: Sequence[str]
    dates: str
    times: str
    thousands: str
    decimal: str
    sentences: Mapping[str, str]

    def say(self, sentence: str, **values: str) -> str:
        """Return a sentence with its placeholders filled in."""
        return self.sentences[sentence].format(**values)

    def has(self, sentence: str) -> bool:
        return sentence in self.sentences

    def day(self, when: date) -> str:
        return self.dates.format(day=when.day, month=self.months[when.month - 1], year=when.year)

    def moment(self, when: datetime) -> str:
        """Write a time in UTC, to the minute."""
        there = when.astimezone(UTC)
        return self.times.format(date=self.day(there.date()), clock=f"{there:%H:%M}")

    def count(self, value: int) -> str:
        return f"{value:,}".replace(",", self.thousands)

    def number(self, value: float | None, unit: str = "") -> str:
        """Write a number with one digit after the point; a dash where there is no value."""
        return "—" if value is None else f"{value:.1f}".replace(".", self.decimal) + unit


def codes() -> list[str]:
    """Return the codes of all languages."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


@cache
def read(code: str) -> Language:
    """Return the language with this code. Raises `MeguError` when there is none."""
    if code not in codes():
        raise MeguError(f"there is no language {code!r}", f"--language is one of {', '.join(codes())}")
    return Language(code=code, **yaml.safe_load((_folder() / f"{code}.yaml").read_text(encoding="utf-8")))


def _folder() -> Traversable:
    return files("megu.report.certificate") / "languages"
