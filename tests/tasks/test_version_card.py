"""What the registry shows of a version fits into MLflow's tables, and keeps its links, however much was asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megu.core.project import Project
from megu.evaluation.summary import Summary
from megu.tracking.versions import DESCRIBED
from tasks.records.record import version_card


@pytest.mark.parametrize("classes", [1, 2000])
def test_a_long_request_is_cut_and_not_the_way_to_the_evidence(tmp_path: Path, classes: int) -> None:
    marks = {"Ar": 90.0, "Af": 0.0, "MIA": 10.0}
    headline = f"forgot {', '.join(f'class {number}' for number in range(classes))}"
    summary = Summary(headline=headline, stages=[], metrics=marks, original=marks, reference=None)
    run: Any = SimpleNamespace(id="abc", url=lambda base: f"{base}/run" if base else None)
    card = version_card(Project(tmp_path), run, summary)
    assert len(card) <= DESCRIBED
    assert "class 0" in card
    for part in ("`megu verify abc`", "/run/artifacts/report.html)", "/run/artifacts/dossier)"):
        assert part in card
