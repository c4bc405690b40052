"""Two processes through torch's own launcher, over Gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny import images

from megu.cli import train_distributed
from megu.config import tree as config
from megu.core.device import CPU
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import save
from megu.data.tensors import ImageSet
from megu.models import build
from megu.training.distributed import World, joined, replicated, whole_batch_norm, world
from megu.training.loop import TrainParams, fit, train
from megu.training.weights import digest, load_model

ROOT = Path(__file__).resolve().parents[2]
# No batch norm, and steps large enough to be told from rounding.
RECIPE = {
    "arch": "vit-tiny",
    "epochs": 2,
    "batch_size": 16,
    "optimiser": "sgd",
    "lr": 0.05,
    "weight_decay": 0.0,
    "augment": "flip-crop",
}


@pytest.fixture
def toy(project: Project) -> Project:
    made = images(32)
    pixels = made.images.permute(0, 2, 3, 1).numpy(), made.labels.numpy()
    save(project.data("toy"), name="toy", classes="abcd", train=pixels, test=pixels)
    return project


def launch(project: Project, out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    changes = [f"--set={setting}" for setting in settings]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "megu.cli.train_distributed", "--out", str(out), *changes),
        ],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_come_to_the_weights_of_one(toy: Project, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "original.safetensors"
    recipe = [f"train.{key}={value}" for key, value in RECIPE.items()]
    ended = launch(toy, out, "data.name=toy", "device=cpu", "seed=3", *recipe)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("original.safetensors: ") == 1, "only the first process writes"
    assert "2 processes on cpu" in ended.stdout
    found, info = load_model(out)
    assert info.image_size == (8, 8)

    data = arrays.load(toy.data("toy"))
    single = train(
        ImageSet.from_partition(data.train, data.mean, data.std, CPU),
        TrainParams(**RECIPE),  # type: ignore[arg-type]
        4,
        seed=3,
    )
    start = build("vit-tiny", 4, 1, seed=3, image_size=(8, 8))

    def between(one: torch.nn.Module, other: torch.nn.Module) -> float:
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs) ** 0.5

    # bfloat16 products round otherwise in half a batch; a gradient of half of the batch would be some 50% off.
    assert between(found, single) < 0.03 * between(single, start)


def test_the_limit_of_the_data_set_holds_here_too(toy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_distributed, "joined", lambda device: nullcontext(CPU))
    asked = config.load(
        toy.params, ["data.name=toy", "data.per_class=3", "device=cpu", "train.arch=vit-tiny", "train.epochs=1"]
    )
    train_distributed.train_original(toy, asked, tmp_path / "limited.safetensors")
    data = arrays.limited(arrays.load(toy.data("toy")), 3)
    alone = train(ImageSet.from_partition(data.train, data.mean, data.std, CPU), asked.train, 4, asked.seed)
    assert len(data.train) == 12
    assert digest(load_model(tmp_path / "limited.safetensors")[0]) == digest(alone)


def test_what_goes_wrong_is_one_line(toy: Project, tmp_path: Path) -> None:
    ended = launch(toy, tmp_path / "a.safetensors", "data.name=toy", "device=cpu", "train.batch_size=15")
    assert ended.returncode != 0
    assert "megu: a batch of 15 does not divide among 2 processes: make train.batch_size a multiple of 2" in ended.stderr
    assert not (tmp_path / "a.safetensors").exists()


def test_without_a_launcher_it_says_how(
    toy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(toy.root)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert train_distributed.main(["--out", "a.safetensors"]) == 2
    assert capsys.readouterr().err.startswith("megu: no launcher started this process: torchrun --nproc-per-node 2 -m")


def test_a_device_must_be_each_processes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(MeguError, match="every process needs its own"), joined("cuda:1"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MeguError, match="process 1 has no CUDA device: this machine has 1"), joined("cuda"):
        pass


def test_the_shares_of_a_batch_are_all_of_it() -> None:
    batch = torch.arange(12)
    assert torch.equal(torch.cat([batch[World(rank, 3).share(12)] for rank in range(3)]), batch)
    with pytest.raises(MeguError, match="a batch of 10 does not divide among 3 processes"):
        World(0, 3).share(10)


def test_a_process_alone_has_nothing_around_its_model() -> None:
    model = build("resnet-compact", 4, 1, seed=0)
    assert world() == World(0, 1)
    assert replicated(model) is model
    assert whole_batch_norm(model, torch.device("cuda")) is model


def test_batch_norm_is_of_the_whole_batch_on_cuda_and_keeps_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be seen without a GPU: which modules there would be."""
    monkeypatch.setattr("megu.training.distributed.world", lambda: World(0, 2))
    model = build("resnet-compact", 4, 1, seed=0)
    names = list(model.state_dict())
    assert whole_batch_norm(model, CPU) is model
    converted = whole_batch_norm(model, torch.device("cuda"))
    assert converted is model, "in place, so that the caller's model is the trained one"
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(module, torch.nn.SyncBatchNorm) for module in norms)
    assert list(model.state_dict()) == names


def test_only_the_first_process_saves_and_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megu.training import loop as training

    path = tmp_path / "checkpoint"
    saved: list[int] = []
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(training.checkpoints, "save", lambda *arguments: saved.append(arguments[3]))
    for rank, count in ((1, 0), (0, 6)):
        saved.clear()
        path.write_text("not one of ours")
        monkeypatch.setattr(training, "world", lambda rank=rank: World(rank, 1))
        monkeypatch.setattr(World, "share", lambda self, batch: slice(None))
        fit(build("resnet-compact", 4, 1, 0), images(), TrainParams(epochs=1, batch_size=16), seed=0, checkpoint=path)
        assert len(saved) == count
        assert path.exists() == bool(rank)


def test_progress_comes_as_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 0.0, 4.0, 20.0, 21.0])
    monkeypatch.setattr(train_distributed.time, "monotonic", lambda: next(moments))
    advance = train_distributed.Lines().start("train", 5000, "images")
    for amount in (1000, 500, 1500, 100):
        advance(amount)
    assert capsys.readouterr().out == "train: 3,000 of 5,000 images, 100 a second\n"
