"""Whether a model is compiled: from rates, of this training and of the last one like it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from megu.core.device import CPU
from megu.core.progress import watching
from megu.training import compiling
from megu.training.compiling import PRIOR, Compiled, Compiling, Remembered, compilable

CUDA = torch.device("cuda")


@dataclass
class Clock:
    """Seconds that pass by hand."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Notes:
    notes: list[str] = field(default_factory=list)

    def stage_starts(self, name: str, title: str) -> None: ...

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock; and a compiler that changes nothing but the object."""
    clock = Clock()
    monkeypatch.setattr(compiling, "time", clock)
    monkeypatch.setattr(torch, "compile", nn.Sequential)
    return clock


def decided(clock: Clock, steps: int, rate: float, remembered: Remembered, taken: float = 30.0, gain: float = 2.0) -> list[int]:
    """After which steps a training of ``steps`` at ``rate`` steps a second is said to be recorded anew. Compiling takes ``taken`` seconds."""
    model = Compiling(nn.Identity(), "auto", "a kind", steps, "original", remembered)
    found, speed = [], rate
    for done in range(50, steps + 1, 50):
        clock.now += 50 / speed
        if model.note_progress(done):
            found.append(done)
            clock.now, speed = clock.now + taken, rate * gain
    assert isinstance(model.called, nn.Sequential) == bool(found)
    return found


@pytest.mark.parametrize(
    ("steps", "rate", "compiled"),
    [(20_000, 291.0, False), (40_000, 291.0, True), (4_000, 97.0, False), (20_000, 97.0, True), (50, 1.0, False)],
)
def test_a_training_is_compiled_when_what_is_left_repays_it(
    steps: int, rate: float, compiled: bool, clock: Clock, tmp_path: Path
) -> None:
    """The first time by the prior: after 100 steps, once."""
    assert decided(clock, steps, rate, Remembered(tmp_path / "rates.json")) == ([100] if compiled else [])


def test_what_compiling_took_and_gained_decides_the_next_time(clock: Clock, tmp_path: Path) -> None:
    remembered, notes = Remembered(tmp_path / "cache" / "rates.json"), Notes()
    with watching(notes):
        assert decided(clock, 20_000, 100.0, remembered, taken=150.0, gain=1.25) == [100]
        found = remembered.find("a kind")
        assert found is not None
        assert (found.seconds, found.gain) == (pytest.approx(150.0), pytest.approx(1.25))
        assert decided(clock, 20_000, 100.0, remembered) == [], "150 s for 40 s"
        assert decided(clock, 90_000, 100.0, remembered) == [100]
    assert notes.notes == [
        "original: compiled: 199 s are left at 100 steps/s, compiling may take 20 s for 1.25 times that rate",
        "original: not compiled: 199 s are left at 100 steps/s, compiling took 150 s for 1.25 times that rate",
        "original: compiled: 899 s are left at 100 steps/s, compiling took 150 s for 1.25 times that rate",
    ]


def test_what_gained_nothing_is_not_compiled_again(clock: Clock, tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "rates.json")
    assert decided(clock, 10**6, 100.0, remembered, gain=0.98) == [100]
    assert decided(clock, 10**6, 100.0, remembered) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '"text"',
        '{"a kind": 3}',
        '{"a kind": {"seconds": 1}}',
        '{"a kind": {"seconds": 1, "gain": 0}}',
        '{"a kind": {"seconds": 1e999, "gain": 2}}',
    ],
)
def test_a_file_that_cannot_be_read_is_ignored_and_written_anew(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(content)
    remembered = Remembered(path)
    assert remembered.find("a kind") is None
    remembered.keep("a kind", PRIOR)
    assert remembered.find("a kind") == PRIOR
    remembered.keep("another", Compiled(1.0, 2.0))
    assert set(json.loads(path.read_text())) == {"a kind", "another"}


def test_a_file_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    remembered = Remembered(tmp_path / "file" / "rates.json")
    remembered.keep("a kind", PRIOR)
    assert remembered.find("a kind") is None


@given(seconds=st.floats(0, 1e6), gain=st.floats(0.01, 100), left=st.floats(0, 1e9), more=st.floats(0, 1e9))
def test_more_to_do_never_speaks_against_compiling(seconds: float, gain: float, left: float, more: float) -> None:
    found = Compiled(seconds, gain)
    assert not found.repays(left) or found.repays(left + more)
    assert gain > 1 or not found.repays(left)


@pytest.mark.parametrize("setting", ["on", "off"])
def test_what_was_asked_for_is_done_and_nothing_measured(setting: str, clock: Clock, tmp_path: Path) -> None:
    model = Compiling(nn.Identity(), setting, "", 10**6, "original", Remembered(tmp_path / "rates.json"))
    assert isinstance(model.called, nn.Sequential) == (setting == "on")
    for done in range(50, 1000, 50):
        clock.now += 100
        assert not model.note_progress(done)
    assert not list(tmp_path.iterdir())


def test_only_cuda_may_be_compiled_on_its_own_with_a_compiler_and_not_in_deterministic_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "recordable", lambda device: device.type == "cuda")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name)
    assert compilable(CUDA)
    assert not compilable(CPU)
    for target, attribute, found in (
        (compiling.shutil, "which", None),
        (compiling.importlib.util, "find_spec", None),
        (torch, "are_deterministic_algorithms_enabled", True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, attribute, lambda *name, found=found: found)
            assert not compilable(CUDA), attribute
