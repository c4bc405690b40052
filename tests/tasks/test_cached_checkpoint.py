"""A checkpoint belongs to one key of one stage: a killed training goes on from it, and nothing else does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megu.core.project import Project
from megu.core.stages import Device, Result
from megu.data.arrays import save
from megu.training import loop as training
from megu.training.loop import TrainParams
from tasks.original import TRAINED
from tasks.run import cached

ARCH = """import torch.nn as nn
def build(k, c): return nn.Sequential(nn.Flatten(), nn.Linear(64, {0}), nn.ReLU(), nn.Linear({0}, k))
"""


@pytest.fixture
def data(project: Project) -> Result:
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), dtype=np.uint8), np.arange(32) % 2
    save(project.data("toy"), name="toy", classes="ab", train=images, test=images)
    return Result("dataset", {}, {}, {"name": "toy", "classes": ["a", "b"]}, {}, 0.0, {})


@pytest.fixture
def of_width(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.chdir(project.root)

    def write(width: int) -> None:
        (project.root / "edited.py").write_text(ARCH.format(width))
        sys.modules.pop("edited", None)
        shutil.rmtree(
            project.root / "__pycache__", ignore_errors=True
        )  # it cannot tell two versions of one second and one size

    yield write
    sys.modules.pop("edited", None)


def train(project: Project, data: Result) -> str:
    bound = TRAINED.bind(
        project,
        {"data": data, "params": TrainParams(arch="edited:build", epochs=3, batch_size=8), "seed": 0, "device": Device("cpu")},
    )
    digest: str = TRAINED.run(TRAINED.key(TRAINED.parts(bound)), bound).values["weights_digest"]
    return digest


def killed(project: Project, data: Result) -> None:
    """Train until the first checkpoint is there."""
    real = training.checkpoints.save

    def save_and_stop(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
        patch.setattr(training.checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(project, data)


def left(project: Project) -> list[Path]:
    return sorted(project.checkpoints.glob("*"))


def test_a_kill_and_an_edited_architecture(
    project: Project, data: Result, of_width: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    real = training.checkpoints.restore
    monkeypatch.setattr(training.checkpoints, "restore", lambda *arguments: begun.append(real(*arguments)) or begun[-1])
    of_width(5)
    whole = train(project, data)
    killed(project, data)
    assert len(left(project)) == 1
    assert train(project, data) == whole
    assert begun[-1] == 1, "it went on"
    assert left(project) == []

    killed(project, data)
    of_width(6)
    edited = train(project, data)
    assert begun[-1] == 0, "another architecture begins again"
    assert left(project) == [], "and the old checkpoint is gone"
    of_width(5)
    assert edited != whole == train(project, data)
    assert begun[-1] == 0


@pytest.mark.parametrize("part", ["package torch", "package numpy", "device class", "code megu.training.loop"])
def test_a_checkpoint_of_other_code_packages_or_device_is_removed(project: Project, data: Result, part: str) -> None:
    from megu.core import stages

    project.checkpoints.mkdir(parents=True)
    bound = TRAINED.bind(project, {"data": data, "params": TrainParams(), "seed": 0, "device": Device("cpu")})
    parts = TRAINED.parts(bound)
    assert part in parts
    paths = []
    for now in (parts, {**parts, part: "another"}):
        token = stages._COMPUTING.set(TRAINED.key(now))
        paths.append(cached.checkpoint(project, "original", data, TrainParams(), 0))
        stages._COMPUTING.reset(token)
        paths[-1].write_bytes(b"state")
    assert paths[0] != paths[1]
    assert left(project) == [paths[1]]
    other = cached.checkpoint(project, "original", data, TrainParams(), 1)
    assert other not in paths
    assert left(project) == [paths[1]], "that of other inputs stays"
