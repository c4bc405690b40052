"""The ``params.yaml`` of a new project: what was chosen, and every other key with its default and its meaning in comments."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from megu.config import explained

HEAD = """\
# The configuration of this project. A key behind a # has its default, which is the value shown: take the # away to change it.
# One run can differ: megu run --set forget.classes='[Bag]' --set unlearn.alpha=0.6
"""
_WIDTH = 110


def text(values: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """The file with ``values`` in it, by section, and all else commented out. only: the sections to write, all where none is named."""
    parts = [_part(name, values.get(name)) for name in explained.sections() if not only or name in only]
    return ("" if only else HEAD) + "".join(f"\n{part}" for part in parts)


def _part(name: str, given: Any) -> str:
    kind = explained.kind_of_section(name)
    if kind is None:
        (key,) = explained.section(name)
        return _entry("", name, key, given)
    head = _comment("", explained.about(kind)) + f"{name}:\n"
    inner = given or {}
    keys = [(key, key.name.partition(".")[2]) for key in explained.section(name)]
    return head + "".join(_entry("  ", short, key, inner.get(short)) for key, short in keys)


def _entry(indent: str, name: str, key: explained.Key, given: Any) -> str:
    value = key.default if given is None else given
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    return _comment(indent, key.meaning) + f"{indent}{'#' if given is None else ''}{name}: {written}\n"


def _comment(indent: str, said: str) -> str:
    """A sentence in lines of comment."""
    if not said:
        return ""
    sentence = said.replace("`", "").rstrip(".")
    start = f"{indent}# "
    return (
        textwrap.fill(
            f"{sentence[0].upper()}{sentence[1:]}.",
            _WIDTH,
            initial_indent=start,
            subsequent_indent=start,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )
