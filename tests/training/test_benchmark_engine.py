"""benchmarks/engine.py runs, where only torch and numpy are installed, and writes its figures where they belong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from test_house import REFUSED

ROOT = Path(__file__).resolve().parents[2]
MARKERS = "# Page\n<!-- measured: cpu -->\nold\n<!-- end: cpu -->\n<!-- measured: cuda -->\n<!-- end: cuda -->\nafter\n"


def test_it_measures_both_loops_and_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "engine.md"
    page.write_text(MARKERS)
    program = (
        f"import sys, runpy\nfor name in {REFUSED}: sys.modules[name] = None\n"
        "sys.argv = ['engine.py', '--device', 'cpu', '--model', 'resnet-compact', '--batch', '8', '--seconds', '0.2', '--rounds', '2', "
        f"'--workers', '1', '--document', {str(page)!r}]\nrunpy.run_path('benchmarks/engine.py', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    turns = re.findall(r"^round (\d), (\w+): ([\d,.]+) images/s", ended.stdout, flags=re.MULTILINE)
    assert [(number, name) for number, name, _ in turns] == [
        ("1", "ours"),
        ("1", "ordinary"),
        ("2", "ours"),
        ("2", "ordinary"),
    ]
    text = page.read_text()
    rates = {name: [float(rate.replace(",", "")) for _, other, rate in turns if other == name] for name in ("ours", "ordinary")}
    medians = {name: sum(values) / 2 for name, values in rates.items()}
    said = float(re.search(r"\| images a second \| ([\d,]+) \(", text).group(1).replace(",", ""))  # type: ignore[union-attr]
    assert abs(said - medians["ours"]) < 1  # the printed rates are rounded too, so their mean may round the other way
    ratio = float(re.search(r"megu's loop is ([\d.]+) times as fast", text).group(1))  # type: ignore[union-attr]
    assert abs(ratio - medians["ours"] / medians["ordinary"]) < 0.02
    assert "old" not in text
    assert text.startswith("# Page\n<!-- measured: cpu -->\n")
    assert text.endswith("<!-- end: cpu -->\n<!-- measured: cuda -->\n<!-- end: cuda -->\nafter\n")


def test_the_page_in_docs_has_measured_figures() -> None:
    text = (ROOT / "docs" / "engine.md").read_text()
    assert "megu's loop is " in text.partition("<!-- measured: cpu -->")[2].partition("<!-- end: cpu -->")[0]
    gpu = text.partition("<!-- measured: gpu -->")[2].partition("<!-- end: gpu -->")[0]
    assert all(f"**{part}**" in gpu for part in ("engine", "methods", "bits", "agree"))
    assert "**no**" not in gpu, "the GPU agrees with the CPU, and recorded steps with unrecorded ones"
    assert "<!-- measured: cuda -->" in text, "where benchmarks/engine.py writes a GPU's figures"
