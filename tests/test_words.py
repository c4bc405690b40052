"""The words: what the style guide calls private language is in no message, docstring or page, and in no new public name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_house import FILES, HERE, ROOT

PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "labels.md")
PAGES += [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("megu/**/*.html"))

#: What is said nowhere -> what is said instead.
PHRASES = {
    r"\bno finite number\b": "not finite",
    r"\bends never\b": "never decreases to zero",
    r"\bin hand\b": "in progress, shared",
    r"(?<!there )\b(is|are) no more\b(?! than)": "is dead, has ended",
    r"\bsaid to be so\b": "is reported",
    r"\bamong all that\b": "on, of all",
    r"\bhas not as many\b": "has 3, the header has 4",
    r"\b(compute_deterministically|let_the_killed_go)\b": "set_deterministic, wait_for_zombie",
    r"\bmade good\b": "recovered",
    r"\bput in order\b": "cleaned up",
    r"\bleftovers?\b": "what is to be cleaned up",
    r"\bneedles?\b": "search patterns",
    r"(?<!not )\bsought\b": "searched for",
}

#: Word of a public name -> the field's own.
NAMES = {
    "apart": "redact",
    "asked": "predict, query, prompt",
    "case": "verification context",
    "given": "provided, specified",
    "hidden": "redact",
    "judge": "similarity",
    "judgement": "similarity scores",
    "kept": "cached",
    "known": "cached",
    "leftovers": "clean up, recover",
    "look": "inspect, plan",
    "looked": "inspect, plan",
    "mark": "score, evaluate",
    "marks": "metrics",
    "named": "provided, specified",
    "needle": "search pattern",
    "needles": "search patterns",
    "private": "redact",
    "seal": "sign, root hash",
    "sealed": "signed",
    "settle": "reconcile",
    "sought": "search patterns",
    "standing": "status",
    "surface": "location, store",
    "words": "text",
}

#: The names in files that exist (seal, surface, given, kept), and those that are the right word where they stand (a private key, a vision
#: model that judges). The list only gets shorter: strike a name off when it is renamed.
REMAINING = """
asked given given_reference is_known_clutter judge Judgement kept known looked marks named parse_seal private seal Seal
seal_in_mlflow sealed Sealed surface words
"""


def names(path: Path) -> Iterator[str]:
    """The public names of a module: its own, its classes, functions and methods, and the fields of its classes."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (
                entry.target.id
                for entry in node.body
                if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)
            )


def forbidden(name: str) -> set[str]:
    """The words of a public name that are not the field's."""
    return set() if name.startswith("_") else {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)} & set(NAMES)


def messages(path: Path) -> Iterator[str]:
    """What a module says: its docstrings and its other texts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield " ".join(node.value.split())


def phrases(text: str) -> dict[str, str]:
    """The forbidden phrases of a text, each with what to say instead."""
    return {found[0]: better for phrase, better in PHRASES.items() if (found := re.search(phrase, text, re.IGNORECASE))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the loss is no finite number", ["no finite number"]),
        ("a process that is no more", ["is no more"]),
        ("there are no more, and it is no more than two", []),
        ("Put in order what a killed run had in hand", ["in hand", "Put in order"]),
        ("the rate is not sought", []),
    ],
)
def test_a_phrase_is_found_and_english_is_not(text: str, found: list[str]) -> None:
    assert list(phrases(text)) == found


def test_a_word_is_found_in_a_name() -> None:
    assert forbidden("KeptResult") == {"kept"}
    assert forbidden("judge_apart") == {"judge", "apart"}
    assert forbidden("_kept") == forbidden("keep_settings") == forbidden("landmark") == set()


def test_no_message_and_no_docstring_speaks_a_private_language() -> None:
    found = {HERE[path]: said for path in FILES for text in messages(path) if (said := phrases(text))}
    assert not found


def test_no_page_speaks_a_private_language() -> None:
    assert len(PAGES) > 30
    assert not {path.name: said for path in PAGES if (said := phrases(" ".join(path.read_text().split())))}


def test_no_public_name_is_a_private_word() -> None:
    found = {name for path in FILES for name in names(path) if forbidden(name)}
    new = {name: sorted(NAMES[word] for word in forbidden(name)) for name in found - set(REMAINING.split())}
    assert not new, "the field has a word for it"
    assert not set(REMAINING.split()) - found, "renamed: strike these off REMAINING"
