"""The pages of measurements are made of the numbers beside them, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import ROOT, module

EVIDENCE, WORTH = module("evidence.py"), module("labels_worth.py")


def test_the_page_of_evidence_is_what_its_numbers_give(tmp_path: Path) -> None:
    EVIDENCE.document(ROOT / "docs" / "evidence.json", tmp_path)
    assert (tmp_path / "evidence.md").read_text() == (ROOT / "docs" / "evidence.md").read_text()


def test_the_page_of_labels_is_what_its_numbers_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WORTH, "png", lambda figure: b"")  # its drawing is tested elsewhere, and takes longer than all else
    WORTH.document(json.loads((ROOT / "docs" / "labels.json").read_text()), tmp_path / "labels.md")
    assert (tmp_path / "labels.md").read_text() == (ROOT / "docs" / "labels.md").read_text()


def test_each_machine_has_tables_of_its_own_and_the_default_is_judged_on_the_newest_that_ran_it(tmp_path: Path) -> None:
    facts = {"cpu": "one", "cpus": "2", "threads": "1", "version.torch": "2", "python": "3", "git.commit": "0" * 40}
    numbers = {"Ar": 90.0, "Af": 0.0, "MIA": 10.0, "entropy_forget": 0.5}

    def row(machine: int, seed: int, gap: float) -> dict[str, object]:
        rest = {"unlearned": numbers, "reference": {**numbers, "Ar": 90.0 + seed}, "gap": gap, "time_share": 20.0 + seed}
        return {"machine": machine, "seed": seed, "class": "Bag", "variant": "default", **rest}

    machines = [{**facts, "cpu": "another", "note": "It was busy."}, facts, {**facts, "cpu": "a third", "git.dirty": "true"}]
    rows = [row(at, seed, gap) for at, gap in ((0, 9.0), (1, 1.0)) for seed in (0, 1)]
    content = {"machines": machines, "rows": [*rows, {**row(2, 0, 5.0), "variant": "no noise"}]}
    (tmp_path / "evidence.json").write_text(json.dumps(content))
    EVIDENCE.document(tmp_path / "evidence.json", tmp_path)
    page = (tmp_path / "evidence.md").read_text()
    assert "mean gap over Ar, Af and MIA: **1.00 points**" in page
    assert "largest distance of Ar from the retrain's: **1.00 points**" in page
    assert "commit 000000000000 with uncommitted changes." in page.partition("## On one")[0]
    first, second = page.partition("## On another")[::2]
    assert "| Bag | default | 90.0 (90.5) | 0.0 (0.0) | 10.0 (10.0) | 0.50 (0.50) | 1.00 ± 0.00 | 2/2 |" in first
    assert "9.00 ± 0.00" in second
    assert "It was busy." in second
