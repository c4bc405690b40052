"""What docs/cifar.md says is so: its tables and its commands."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import module

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cifar.md").read_text()
NAMES = ("cifar100-class", "cifar20-class", "cifar20-subclass", "cifar10-random")


def test_its_tables_are_written_from_the_files_and_the_published_numbers() -> None:
    numbers = module("cifar_numbers.py")
    made = "\n".join([*numbers.needs(), "", *numbers.rows()])
    for table in made.strip().split("\n\n"):
        assert table in PAGE


def test_it_has_one_full_size_command_for_each_file_and_admits_that_none_was_run() -> None:
    assert re.findall(r"^\$ megu bench bench/([\w-]+)\.yaml --document", PAGE, flags=re.MULTILINE) == list(NAMES)
    assert "**None of the full-size benchmarks below has been run.**" in PAGE
    assert not any((ROOT / "docs" / f"{name}.md").exists() for name in NAMES), "then say so"
