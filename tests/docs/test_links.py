"""Every link in the README and the pages leads somewhere, and every command in them is one that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from megu.cli.main import app
from megu.config import explained
from megu.labeling.kinds import KINDS
from megu.unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
#: Commands whose --set takes keys of the configuration; a benchmark has keys of its own beside them.
CONFIGURED = ("megu run", "megu label", "megu explain", "megu process")


def text_of(page: Path) -> str:
    """A page without its code, in which nothing is a link or a heading."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)[^`]+\1", lambda code: code[0] if "](" not in code[0] else "", text)


@cache
def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in its address."""
    heads = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", head).strip().lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert path.is_relative_to(DOCS) or DOCS not in page.parents, f"{target}: the site has nothing of outside docs/"
        assert not anchor or anchor in anchors(path), target


def test_every_page_has_its_place_in_the_site() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = [name for entry in nav for name in ([entry] if isinstance(entry, str) else next(iter(entry.values())))]
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@cache
def program() -> Any:
    return typer.main.get_command(app)


def examples(page: Path) -> Iterator[list[str]]:
    """The words of each call of megu in the page's consoles."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", "", block).splitlines():
            for call in re.split(r" && | \| |; ", line.removeprefix("$ ")) if line.startswith("$ ") else ():
                words = shlex.split(call, comments=True)
                if "megu" in words[:1]:
                    yield words


@pytest.mark.parametrize("page", [page for page in PAGES if any(examples(page))], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_on_a_console_is_one_that_there_is(page: Path) -> None:
    for words in examples(page):
        command, at = program(), 1
        while at < len(words) and words[at] in getattr(command, "commands", {}):
            command, at = command.commands[words[at]], at + 1
        assert not getattr(command, "commands", None), f"{' '.join(words)}: no such command"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        given = {word.partition("=")[0] for word in words[at:] if re.match(r"--?[a-z]", word)}
        assert given <= known, f"{' '.join(words)}: {given - known}"
        if " ".join(words[:at]) in CONFIGURED:
            set_to = [value for flag, value in pairwise(words) if flag == "--set"]
            assert {value.partition("=")[0] for value in set_to} <= keys(), words


@cache
def keys() -> set[str]:
    chosen = [("unlearn", name) for name in METHODS] + [("labeling", name) for name in KINDS]
    found = [*((name, "") for name in explained.sections()), *chosen]
    return {key.name for entry in found for key in explained.section(*entry)}
