"""What the README and the pages say is so."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import printed

from megu.labeling.ollama import strategies

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
TITLES = {"salun": "SalUn", "unsir": "UNSIR", "scrub": "SCRUB", "delete": "DELETE", "finetune": "fine-tuning"}
VISION = (ROOT / "docs" / "how-to" / "vision-model.md").read_text()


def test_the_numbers_of_questions_are_what_the_code_counts() -> None:
    asked = {name: strategies.calls(name, 100, 10, 10, 20) for name in ("pairwise", "ranked", "screened")}
    for number in asked.values():
        assert f"{number:,}" in VISION
    assert asked["screened"] == 11_000


def test_it_is_said_what_has_met_a_real_vision_model_and_with_which_four_commands() -> None:
    assert "how well gemma3:4b or any other model judges your classes has not been measured" in VISION.replace("\n", " ")
    for command in ("ollama serve", "ollama pull gemma3:4b", "megu doctor", "megu run --set labeling.kind=ollama"):
        assert f"$ {command}\n" in VISION


def test_the_page_about_labeling_is_written_from_the_functions() -> None:
    made = "\n".join(printed("labeling_numbers.py"))
    assert made.strip() in (ROOT / "docs" / "labeling.md").read_text()


def test_what_it_shows_is_what_the_pages_show() -> None:
    pages = {
        name: (ROOT / "docs" / name).read_text().replace("](../", "](docs/")
        for name in ("tutorial.md", "how-to/compare-methods.md")
    }
    run = README[README.index("```text") : README.index("registered   models:/megu/1")]
    assert run in pages["tutorial.md"]
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    assert "\n".join(rows).replace("\n", "") in pages["how-to/compare-methods.md"].replace("\n", "").replace(
        "|---|---|---|---|---|", ""
    )


def test_how_good_it_is_is_what_the_linked_pages_have_measured() -> None:
    """megu's gap and the retrain's are those of the first page of a row; the nearest other method is that of the last."""
    for row in (line for line in README.splitlines() if line.startswith("| ") and "](docs/" in line):
        pages = [ROOT / page for page in re.findall(r"\]\((docs/[\w-]+\.md)\)", row)]
        _, _, _, megu, following, floor, _ = map(str.strip, row.split("|"))
        own, others = gaps(pages[0]), {name: gap for name, gap in gaps(pages[-1]).items() if not name.startswith("megu")}
        assert megu == f"{own['megu']:.1f}", row
        assert floor == (f"{own['true retrain']:.1f}" if "true retrain" in own else "—"), row
        nearest = min(others.keys() - {"original", "true retrain"}, key=others.__getitem__)
        assert following.partition(",")[0] == f"{TITLES[nearest]} {others[nearest]:.1f}", row


def gaps(page: Path) -> dict[str, float]:
    """Return each method's mean gap over all targets and seeds, where it has one."""
    table = page.read_text().partition("## Over all targets and seeds")[2].partition("\n\n- ")[0]
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")]
    return {name.strip(): float(gap.split()[0]) for name, gap in cells[1:] if gap.strip() != "—"}


def test_the_readme_is_short_and_its_first_forty_lines_say_what_it_is() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    start = "\n".join(lines[:40])
    commands = ("pip install megu", "megu init", "megu run", "make run", "make test")
    for needed in (*commands, "docs/report.png", "arXiv 2602.17088"):
        assert needed in start
