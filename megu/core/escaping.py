"""Names that other people chose (classes, data sets, methods, files), written where each character may mean something.

One function for each sink, by its own rule; whoever writes a name into one of them calls it. In HTML that is the template's own
escaping (`megu.report.templates`), with `visible` for what no page can hold.
"""

from __future__ import annotations

import re
import unicodedata

#: Control characters, halves of surrogate pairs, separators of lines, and what turns the direction of writing.
_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Text whose hidden characters can be seen (``\\x1b``), so that any encoding, page or terminal takes it; lines and tabs stay."""
    if text.isprintable():  # nearly all text; no hidden character is
        return text
    return "".join(_shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter in "\n\t" or (unicodedata.category(letter) not in _HIDDEN and letter not in _TURNS):
        return letter
    return letter.encode("unicode_escape").decode()


def plain(text: str) -> str:
    """One line of text, for a terminal, a tag or the name of a run."""
    return " ".join(visible(text).split())


def markdown(text: str) -> str:
    """Text in a paragraph, a heading or a cell of a table of Markdown (CommonMark and GitHub's): no markup, HTML, link or formula."""
    text = re.sub(r"[\\`*\[\]|~$]", r"\\\g<0>", plain(text))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # between letters it is none
    text = re.sub(r"&(?=#|\w)", "&amp;", text).replace("<", "&lt;").replace("@", "&#64;").replace("://", "&#58;//")
    text = re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}&#46;", text)
    return re.sub(r"^([#>+=-]|\d+(?=[.)](\s|$)))", _begun, text)


def _begun(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};" if len(found[0]) == 1 and not found[0].isdigit() else f"&#{ord(found[0][0])};{found[0][1:]}"


def markdown_code(text: str) -> str:
    """Text as a code span of Markdown."""
    text = plain(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def markdown_block(text: str, language: str = "") -> str:
    """Lines as a fenced block of Markdown."""
    text = visible(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def mermaid(text: str) -> str:
    """Text in a quoted label of Mermaid: what it, or the HTML that it makes, would take for its own becomes a space."""
    return re.sub(r'["<>\[\](){}|#;`&%\\]', " ", plain(text))


def csv_cell(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; quoting is the writer's."""
    text = plain(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def figure(text: str, most: int) -> str:
    """A label of matplotlib of at most ``most`` characters: no dollar sign begins a formula, no leading underscore hides it from a legend."""
    text = plain(text)
    text = (text if len(text) <= most else f"{text[: most - 1]}…").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
