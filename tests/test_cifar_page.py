"""What docs/cifar.md says is so: its tables, its commands, and that the pages at reduced size are what its commands make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from scripts import printed

from megu.bench.config import load
from megu.bench.expansion import expand
from megu.data.cifar import SUPERCLASSES
from megu.data.packing import parse_packing
from megu.project import Project
from tasks.bench import as_file

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cifar.md").read_text()
NAMES = ("cifar100-class", "cifar20-class", "cifar20-subclass", "cifar10-random")
#: Those that the page links at reduced size.
MADE = [name for name in NAMES if f"](reduced/{name}.md)" in PAGE]


def commands() -> list[list[str]]:
    """The arguments of every megu in the page's bash blocks, as bash reads them."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
    shown = "megu() { printf '%s\\0' \"$@\"; printf '\\1\\0'; }\n" + blocks
    said = subprocess.run(["bash", "-ec", shown], check=True, capture_output=True, text=True).stdout
    return [call.split("\0")[:-1] for call in said.split("\1\0")[:-1]]


def bench_commands() -> dict[str, list[str]]:
    """Name of the file -> its settings."""
    found = {}
    for _, file, *rest in (call for call in commands() if call[0] == "bench"):
        assert set(rest[::2]) == {"--set"}
        found[Path(file).stem] = rest[1::2]
    return found


def test_its_tables_are_written_from_the_files_and_the_published_numbers() -> None:
    made = "\n".join(printed("cifar_numbers.py"))
    for table in made.strip().split("\n\n"):
        assert table in PAGE


def test_it_has_one_full_size_command_for_each_file_and_admits_that_none_was_run() -> None:
    assert re.findall(r"^\$ megu bench bench/([\w-]+)\.yaml --document", PAGE, flags=re.MULTILINE) == list(NAMES)
    assert "**None of the full-size benchmarks below has been run.**" in PAGE
    assert not any((ROOT / "docs" / f"{name}.md").exists() for name in NAMES), "then say so"


def test_the_part_of_the_data_is_whole_superclasses() -> None:
    sizes = {}
    for _, _, _, *options in (call for call in commands() if call[0] == "data"):
        given = dict(zip(options[::2], options[1::2], strict=True))
        packing = parse_packing(None, None, given.get("--labels", "fine"), 0.0, given["--only"], int(given["--per-class"]))
        whole = [name for names in SUPERCLASSES.values() if set(names) <= set(packing.only) for name in names]
        assert sorted(whole) == sorted(packing.only)
        sizes[given["--name"]] = (len(packing.only), packing.per_class, packing.coarse_labels)
    assert sizes == {"cifar25": (25, 30, False), "cifar5": (25, 30, True), "cifar5-few": (25, 8, True)}


def test_a_command_without_a_page_at_reduced_size_is_named() -> None:
    assert {file.stem for file in (ROOT / "docs" / "reduced").glob("*.md")} == set(MADE)
    for name in NAMES:
        assert (f"`{name}` has no page yet" in PAGE) == (name not in MADE)


@pytest.mark.parametrize("name", MADE)
def test_a_page_at_reduced_size_is_of_the_command_that_is_shown_and_says_what_it_is_worth(name: str) -> None:
    bench = load(ROOT / "bench" / f"{name}.yaml", bench_commands()[name])
    page = (ROOT / "docs" / "reduced" / f"{name}.md").read_text()
    assert yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]) == as_file(Project(ROOT), bench)
    assert "compare nothing" in page.partition("Made by the command")[0]
    assert f"{len(expand(bench))} runs, none failed" in page
    assert "## Beside the published numbers" not in page
