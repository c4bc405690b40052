"""How fast a training goes, as `benchmarks/engine.py` measures it: what is done once in a training takes no part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts import module

from megu.core.progress import listening, track

ENGINE = module("engine.py")


def test_the_pace_is_that_of_the_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 steps of 8 images the first 100 take a second each, later ones a millisecond, in the last third two."""
    now, marks = 0.0, ENGINE.Marks(8)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    with listening(marks), track("train", 8000, "images") as advance:
        advance(0)
        for step in range(1000):
            now += 1.0 if step < 100 else 0.001 if step < 700 else 0.002
            advance(8)
    assert [done for done, _ in marks.found] == list(range(1, 1000, 50))
    assert marks.paces(100) == pytest.approx([8000, 8000, 4000], rel=0.1)
    assert marks.paces(0)[0] < 50


def test_a_real_training_has_a_pace_in_each_third() -> None:
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), draw.integers(0, 100, 64)
    loop = ENGINE.Ours(ENGINE.Setting(torch.device("cpu"), "resnet-compact", 4, 0, "off"), pixels, labels)
    paces = loop.paces(210, settled=50)
    assert len(paces) == 3
    assert all(10 < pace < 1e6 for pace in paces)
