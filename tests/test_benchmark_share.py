"""benchmarks/share.py: what it counts, and that it measures every part and writes the page."""

from __future__ import annotations

from pathlib import Path

from scripts import printed

BENCH = """\
base:
  train: {arch: resnet-compact, epochs: 10, batch_size: 8}
  noise: {per_label: 2, steps: 5}
  unlearn: {method: megu, retain_samples: 1500, epochs: 3, batch_size: 32}
  proxy: {share: 0.2}
methods: [megu]
"""


def test_it_counts_by_hand_and_measures_every_part(tmp_path: Path) -> None:
    bench, page = tmp_path / "small.yaml", tmp_path / "page.md"
    bench.write_text(BENCH)
    page.write_text("# Page\n<!-- measured: share -->\nold\n<!-- end: share -->\n")
    said = "\n".join(
        printed("share.py", f"--bench={bench}", "--device=cpu", "--rounds=1", "--seconds=0.1", f"--document={page}")
    )
    for name in ("train", "noise", "unlearn"):
        assert f"round 1, {name}: " in said
    text = page.read_text()
    # 49,500 retained images, ten epochs; 101 labels, two images each, five steps; 500 + 1,500 images, three epochs.
    for row in ("retrain, 10 epochs | 495,000 |", "noise | 1,010 |", "re-optimisation | 6,000 |", "made | 99,000 |"):
        assert row in text
    assert "old" not in text
