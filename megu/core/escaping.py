"""Names chosen by other people (classes, data sets, methods, files), escaped for each place where a character may have a meaning.

One function for each sink, by that sink's rules; whoever writes a name into a sink calls its function. HTML uses the templates' own
escaping (`megu.report.templates`), with `visible` for what no page can hold.
"""

from __future__ import annotations

import re
import unicodedata

#: Control characters, halves of surrogate pairs, line separators, and characters that change the direction of writing.
_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Make hidden characters visible (``\\x1b``), so that any encoding, page or terminal takes the text; newlines and tabs stay."""
    if text.isprintable():  # true of nearly all text, and never of a hidden character
        return text
    return "".join(_shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter in "\n\t" or (unicodedata.category(letter) not in _HIDDEN and letter not in _TURNS):
        return letter
    return letter.encode("unicode_escape").decode()


def plain(text: str) -> str:
    """Return one line of text, for a terminal, a tag or the name of a run."""
    return " ".join(visible(text).split())


def markdown(text: str) -> str:
    """Escape text for a paragraph, a heading or a table cell of Markdown (CommonMark and GitHub's): no markup, HTML, link or formula."""
    text = re.sub(r"[\\`*\[\]|~$]", r"\\\g<0>", plain(text))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # between letters it is no markup
    text = re.sub(r"&(?=#|\w)", "&amp;", text).replace("<", "&lt;").replace("@", "&#64;").replace("://", "&#58;//")
    text = re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}&#46;", text)
    return re.sub(r"^([#>+=-]|\d+(?=[.)](\s|$)))", _begun, text)


def _begun(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};" if len(found[0]) == 1 and not found[0].isdigit() else f"&#{ord(found[0][0])};{found[0][1:]}"


def markdown_code(text: str) -> str:
    """Return text as a Markdown code span."""
    text = plain(text)
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def markdown_block(text: str, language: str = "") -> str:
    """Return lines as a fenced Markdown block."""
    text = visible(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def mermaid(text: str) -> str:
    """Escape text for a quoted Mermaid label: characters with a meaning in Mermaid, or in the HTML that it makes, become spaces."""
    return re.sub(r'["<>\[\](){}|#;`&%\\]', " ", plain(text))


def csv_cell(text: str) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula; quoting is the writer's job."""
    text = plain(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def figure(text: str, most: int) -> str:
    """Return a matplotlib label of at most ``most`` characters: no dollar sign starts a formula, no leading underscore hides it from a
    legend."""
    text = plain(text)
    text = (text if len(text) <= most else f"{text[: most - 1]}…").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
