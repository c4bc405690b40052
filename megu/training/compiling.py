"""Decide during a training on CUDA, from measured rates, whether torch compiles the model.

Compiling takes some twenty seconds each time, and its gain depends on the network, the batch and the card (docs/engine.md). So the rate
without it is measured over the first steps, and the cost and gain of the last compilation are read from a small file in the user's cache;
the first time a prior is used. The model is compiled when the remaining steps repay it, and the cost and gain are then stored.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megu.core.device import fast_dtype
from megu.core.errors import MeguError
from megu.core.files.store import writing
from megu.core.progress import stages
from megu.training.capture import recordable


@dataclass(frozen=True)
class Compiled:
    """seconds: how long compiling took. gain: compiled steps per second, relative to those without."""

    seconds: float
    gain: float

    def repays(self, seconds: float) -> bool:
        """Return whether it saves more than it costs in a training with ``seconds`` left to go without it."""
        return seconds * (1 - 1 / self.gain) > self.seconds


#: For a training that was never compiled here. A ResNet-18 on an H100 took 17 to 21 s at three batch sizes, for gains of 1.32, 0.98 and
#: 1.26 (docs/engine.md).
PRIOR = Compiled(seconds=20.0, gain=1.25)


class Remembered:
    """Cost and gain of the last compilation, by kind of training, in a JSON file. An unreadable file counts as empty, an unwritable one is
    left alone: then the prior is used."""

    def __init__(self, path: Path | None = None) -> None:
        """path: by default in the user's cache."""
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.path = path or Path(caches) / "megu" / "compiled.json"

    def find(self, kind: str) -> Compiled | None:
        with suppress(TypeError, KeyError, ValueError):
            entry = self.read()[kind]
            found = Compiled(float(entry["seconds"]), float(entry["gain"]))
            return found if 0 <= found.seconds < math.inf and 0 < found.gain < math.inf else None
        return None

    def keep(self, kind: str, found: Compiled) -> None:
        with suppress(OSError, MeguError), writing(self.path) as file:
            file.write_text(json.dumps({**self.read(), kind: asdict(found)}, indent=1, sort_keys=True))

    def read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_text())
            return found if isinstance(found, dict) else {}
        return {}


def kind_of(arch: str, batch: tuple[int, ...], device: torch.device) -> str:
    """Return the key under which rates are comparable. batch: the shape of a step's images."""
    name = torch.cuda.get_device_name(device)
    return f"{arch}, {'x'.join(map(str, batch))}, {str(fast_dtype(device)).removeprefix('torch.')}, {name}, torch {torch.__version__}"


def compilable(device: torch.device) -> bool:
    """Return whether a training on ``device`` may be compiled automatically: on CUDA, by one process, with Triton and a C compiler.
    Not in deterministic mode, where the clock must not affect a result's bits."""
    if not recordable(device) or torch.are_deterministic_algorithms_enabled():
        return False
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    return importlib.util.find_spec("triton") is not None and any(name and shutil.which(name) for name in compilers)


class Compiling:
    """A model that is called in training, and may be compiled from some step on."""

    def __init__(self, model: nn.Module, setting: str, kind: str, steps: int, label: str, remembered: Remembered) -> None:
        """setting: "on", "off" or "auto" (`compilable`). steps: of the whole training. label: the training's name in the note."""
        self.called: nn.Module = torch.compile(model) if setting == "on" else model  # type: ignore[assignment]
        self.deciding = setting == "auto"
        self.kind, self.steps, self.label, self.remembered = kind, steps, label, remembered
        #: Steps done and the time at the last check.
        self.last: tuple[int, float] | None = None
        #: Seconds per step without compiling.
        self.plain = 0.0
        #: Steps and seconds of the interval in which the model was compiled.
        self.first: tuple[int, float] | None = None

    def note_progress(self, done: int) -> bool:
        """Note that ``done`` steps are done and the device is synchronised; return whether the model is compiled from here on."""
        if not self.deciding:
            return False
        now, last = time.monotonic(), self.last
        self.last = done, now
        if last is None:  # the first steps choose kernels and are recorded
            return False
        steps, seconds = done - last[0], now - last[1]
        if not self.plain:
            self.plain = seconds / steps
            return self.decide(self.steps - done)
        if self.first is None:
            self.first = steps, seconds
            return False
        step = seconds / steps
        self.remembered.keep(self.kind, Compiled(max(self.first[1] - self.first[0] * step, 0.0), self.plain / step))
        self.deciding = False
        return False

    def decide(self, left: int) -> bool:
        known = self.remembered.find(self.kind)
        expected = known or PRIOR
        self.deciding = expected.repays(left * self.plain)
        if self.deciding:
            self.called = torch.compile(self.called)  # type: ignore[assignment]
        said = "compiled" if self.deciding else "not compiled"
        stages().note(
            f"{self.label}: {said}: {left * self.plain:.0f} s are left at {1 / self.plain:.0f} steps/s, compiling "
            f"{'took' if known else 'may take'} {expected.seconds:.0f} s for {expected.gain:.2f} times that rate"
        )
        return self.deciding
