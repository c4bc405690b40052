"""Threads, the processes of Dask and one after the other: equal weights, noise and predictions for equal numbers of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prefect import flow

from megu.bench.config import Runner
from megu.config.tree import parse
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.seeds import positions, process_wide, start
from megu.core.stages import Device, Result
from megu.data.arrays import save
from megu.models import build
from megu.training.weights import digest
from tasks.dataset import DATASET
from tasks.evaluation.predictions import PREDICTIONS
from tasks.evaluation.shadow import SHADOW
from tasks.noise import NOISE
from tasks.original import TRAINED
from tasks.perturbing import PERTURBING
from tasks.reference import REFERENCE
from tasks.run import inputs
from tasks.run.runners import task_runner
from tasks.run.schedule import Scheduler
from tasks.split import SPLIT
from tasks.unlearn import UNLEARN

#: What the flow below carries out; a flow that held it itself could not be sent to another process.
WORK: list[Any] = []


def made(root: Path) -> Project:
    """A project with a data set of sixty small images."""
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text("seed: 0\n")
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = (random.integers(0, 80, (60, 8, 8, 1)) + 80 * labels[:, None, None, None] / 3).astype(np.uint8)
    project = Project(root)
    save(project.data("toy"), name="toy", classes=["a", "b", "c"], train=(pixels, labels), test=(pixels[:30], labels[:30]))
    return project


def config(seed: int, **changes: Any) -> Any:
    values = {
        "seed": seed,
        "device": "cpu",
        "data": {"name": "toy"},
        "forget": {"classes": ["b"]},
        "train": {"epochs": 1, "batch_size": 16},
        "noise": {"per_label": 1, "steps": 2},
        "unlearn": {"steps": 4, "trial_steps": 2, "batch_size": 16},
        **changes,
    }
    return parse(values)


def even(project: Project) -> Result:
    """A transition matrix of a labeler to which all classes look alike."""
    file = project.store.put_arrays({"T": np.full((3, 3), 1 / 3)})
    return Result("transition", {}, {"transition": file}, {}, {}, 0.0, {})


def wiring(project: Project, seed: int) -> Any:
    """A run's trainings, and the noise."""
    values, device = config(seed), Device.of("cpu", False)

    def wired(run: Any) -> None:
        common = {
            "data": run(DATASET, name="toy", per_class=None, pin=None, suppressed="refuse"),
            "seed": seed,
            "device": device,
        }
        split = run(SPLIT, data=common["data"], forget=values.forget, seed=seed, through_dvc=False)
        original = run(TRAINED, params=values.train, **common)
        run(REFERENCE, split=split, params=values.train, **common)
        run(SHADOW, params=values.train, number=0, **common)
        before = run(PREDICTIONS, data=common["data"], model=original, device=device)
        perturbing = run(
            PERTURBING,
            data=common["data"],
            split=split,
            predictions=before,
            transition=even(project),
            params=values.perturbing,
            calibration=values.calibration,
            seed=seed,
        )
        noise = run(NOISE, split=split, original=original, perturbing=perturbing, params=values.noise, **common)
        run(
            UNLEARN,
            split=split,
            original=original,
            perturbing=perturbing,
            noise=noise,
            recipe=None,
            method="megu",
            params=values.unlearn.params,
            code=inputs.method_code(project, values),
            **common,
        )

    return wired


@flow(name="bits")
def many() -> None:
    carry_out()


def carry_out() -> None:
    scheduler, project, found = WORK
    for seed, look in scheduler.run({seed: wiring(project, seed) for seed in (0, 1)}):
        assert look.error is None
        found |= {(seed, ran.decision.label): ran.result.digest for ran in look.ran}


def results(root: Path, kind: str) -> dict[tuple[int, str], str]:
    """The digests of what each stage of two runs at once came to."""
    project, runner = made(root), Runner(kind=kind, workers=2, threads_per_worker=1)  # type: ignore[arg-type]
    WORK[:] = [Scheduler(project, runner.slots, runner.threads, kind != "serial"), project, {}]
    many.with_options(task_runner=task_runner(runner))()
    found: dict[tuple[int, str], str] = WORK[2]
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.xdist_group("flow")
def test_every_kind_of_worker_gives_the_same_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    serial = results(tmp_path / "serial", "serial")
    assert len(serial) == 2 * 9
    assert len(set(serial.values())) == 16, "nothing but data set and split is shared by the seeds"
    assert results(tmp_path / "threads", "threads") == serial
    assert results(tmp_path / "processes", "dask") == serial


def test_networks_that_threads_make_at_once_are_those_of_one_after_the_other() -> None:
    def new(seed: int) -> str:
        start(seed)  # as a training beside does at each step
        return digest(build("resnet-compact", 4, 1, seed=seed))

    with ThreadPoolExecutor(6) as pool:
        at_once = list(pool.map(new, range(24)))
    assert at_once == [new(seed) for seed in range(24)]


def test_the_process_wide_generators_are_started_and_restored() -> None:
    def drawn() -> tuple[float, float, float]:
        import random

        return torch.rand(1).item(), float(np.random.rand()), random.random()

    start(1)
    before = positions()
    with process_wide(5):
        first = drawn()
    with pytest.raises(KeyError), process_wide(6):
        raise KeyError
    assert positions() == before
    with process_wide(5):
        assert drawn() == first
    assert drawn() != first


def test_threads_are_refused_where_something_may_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = made(tmp_path)
    (tmp_path / "dropping.py").write_text(
        "import torch.nn as nn\n"
        "def build(k, c): return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64 * c, k))\n"
        "def plain(k, c): return nn.Sequential(nn.Flatten(), nn.Linear(64 * c, k))\n"
    )
    monkeypatch.chdir(tmp_path)
    for arch in ("resnet-compact", "dropping:plain"):
        inputs.draws_nothing(project, config(0, train={"arch": arch}))
    with pytest.raises(MeguError, match=r"dropping:build draws random numbers .*runner\.kind=dask"):
        inputs.draws_nothing(project, config(0, train={"arch": "dropping:build"}))
    with pytest.raises(MeguError, match="is unknown until data set 'absent' is here"):
        inputs.draws_nothing(project, config(0, train={"arch": "dropping:build"}, data={"name": "absent"}))
