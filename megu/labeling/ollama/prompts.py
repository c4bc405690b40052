"""The text of the questions: template files, each identified by its hash, the user's own where there are any."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from megu.core.errors import MeguError

#: Template -> the placeholders that it must contain, written as `$name`.
PLACES = {"system": {"concepts"}, "pairwise": {"concept"}, "ranked": {"choices", "depth"}}


@dataclass(frozen=True)
class Prompts:
    """Templates by name."""

    texts: Mapping[str, str]

    @property
    def hashes(self) -> dict[str, str]:
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.texts.items()}

    def say(self, name: str, **values: object) -> str:
        return string.Template(self.texts[name]).substitute(values).strip()


def load(folder: Path | None = None) -> Prompts:
    """Return the package's templates, replaced by those in ``folder`` where it has them (``pairwise.txt``, …).

    Raises `MeguError` for a missing folder, a file that is not a template, or a template without one of its placeholders.
    """
    if folder is not None and not folder.is_dir():
        raise MeguError(f"labeling.prompts: there is no folder {folder}", f"make it, with any of {_names()} in it")
    if folder is not None and not any((folder / f"{name}.txt").is_file() for name in PLACES):
        raise MeguError(f"labeling.prompts: {folder} has none of {_names()}", "give the folder with your templates")
    return Prompts({name: _checked(name, _read(name, folder), folder) for name in PLACES})


def _names() -> str:
    return ", ".join(f"{name}.txt" for name in PLACES)


def _read(name: str, folder: Path | None) -> str:
    own = folder / f"{name}.txt" if folder else None
    if own is not None and own.is_file():
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MeguError(f"labeling.prompts: {own} cannot be read ({error})", "write it as UTF-8 text") from None
    return resources.files(__package__).joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")


def _checked(name: str, text: str, folder: Path | None) -> str:
    template = string.Template(text)
    found = set(template.get_identifiers()) if template.is_valid() else None
    if found != PLACES[name]:
        places = ", ".join(f"${place}" for place in sorted(PLACES[name]))
        raise MeguError(
            f"labeling.prompts: {name}.txt must name {places} and nothing else that starts with $", f"correct it in {folder}"
        )
    return text
