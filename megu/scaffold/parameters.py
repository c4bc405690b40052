"""The ``params.yaml`` of a new project: the chosen values, and every other key with its default and its meaning in comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from megu.config import explained

HEAD = """\
# The configuration of this project. A key behind a # has its default, the value shown: remove the # to change it.
# To change a key for one run: megu run --set forget.classes='[Bag]' --set unlearn.alpha=0.6
"""
_WIDTH = 110


def text(values: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """Return the file with ``values`` in it, by section, and everything else commented out. only: the sections to write (default:
    all)."""
    parts = [_part(name, values.get(name)) for name in explained.sections() if not only or name in only]
    return ("" if only else HEAD) + "".join(f"\n{part}" for part in parts)


def _part(name: str, given: Any) -> str:
    kind = explained.kind_of_section(name)
    if kind is None:
        (key,) = explained.section(name)
        return _entry("", name, key, given)
    head = _comment("", explained.about(kind)) + f"{name}:\n"
    return head + "".join(_lines("  ", name, explained.section(name), given or {}))


def _lines(
    indent: str, section: str, keys: Sequence[explained.Key], given: Mapping[str, Any], mark: str = "#"
) -> Iterator[str]:
    """Yield the keys of a section, nested sections indented. mark: what precedes a key that has its default."""
    inner: dict[str, list[explained.Key]] = {}
    for key in keys:
        name, _, below = key.name.removeprefix(f"{section}.").partition(".")
        if below:
            inner.setdefault(name, []).append(key)
        else:
            yield _entry(indent, name, key, given.get(name), mark)
    for name, below_it in inner.items():
        # Commented out as a whole if none of its keys is set: an empty section would not be a section.
        own, hidden = given.get(name), mark if name not in given else ""
        yield f"{indent}{hidden}{name}:\n"
        yield from _lines(f"{indent}{hidden}  ", f"{section}.{name}", below_it, own or {}, "" if hidden else mark)


def _entry(indent: str, name: str, key: explained.Key, given: Any, mark: str = "#") -> str:
    value = key.default if given is None else given
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    return _comment(indent, key.meaning) + f"{indent}{mark if given is None else ''}{name}: {written}\n"


def _comment(indent: str, said: str) -> str:
    """Format a sentence as comment lines."""
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
