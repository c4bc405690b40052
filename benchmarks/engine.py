"""Images a second in training: megu's loop against the ordinary one, on the same model, data and machine, in one run.

The ordinary loop is what most training scripts have: a `DataLoader` with two workers, transforms a sample at a time (crop, flip, to
tensor, normalise), float32, contiguous, SGD, the loss read at every step. megu's is `megu.training.loop.fit` with the same recipe. They take
turns, A B A B …, so that a slow moment of the machine meets both. Then the largest rate of matrix products that this machine reaches, and
what share of it the training uses. Needs torch and numpy alone.

``python benchmarks/engine.py [--device cuda] [--model resnet18] [--batch 128] [--seconds 20] [--document docs/engine.md]``
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.document import write
from megu.core.device import fast_dtype, forget_peak, peak_memory, resolve, set_deterministic
from megu.core.progress import listening
from megu.data.tensors import ImageSet
from megu.models import build
from megu.training.loop import LOOK_EVERY, TrainParams, fit

CLASSES, SIZE, IMAGES = 100, 32, 50_000
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


class Samples(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR100 with RandomCrop(32, 4), RandomHorizontalFlip, ToTensor and Normalize does to a sample."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, labels
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = F.pad(torch.from_numpy(self.pixels[index]).permute(2, 0, 1), (4, 4, 4, 4))
        top, left = torch.randint(9, (2,)).tolist()
        image = image[:, top : top + SIZE, left : left + SIZE]
        if torch.rand(1).item() < 0.5:
            image = image.flip(-1)
        return (image.float().div(255) - self.mean) / self.std, int(self.labels[index])


@dataclass(frozen=True)
class Setting:
    device: torch.device
    model: str
    batch: int
    workers: int
    compile: str


class Ordinary:
    """The loop that one finds in most scripts. ``steps(n)`` takes n steps."""

    def __init__(self, setting: Setting, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.device = setting.device
        self.model = build(setting.model, CLASSES, 3, seed=0).to(memory_format=torch.contiguous_format).to(setting.device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
        loader = DataLoader(
            Samples(pixels, labels),
            setting.batch,
            shuffle=True,
            drop_last=True,
            num_workers=setting.workers,
            persistent_workers=True,
        )
        self.batches = self.forever(loader)

    @staticmethod
    def forever(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    def steps(self, count: int) -> None:
        self.model.train()
        total = 0.0
        for _ in range(count):
            images, labels = next(self.batches)
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimiser.zero_grad()
            loss = F.cross_entropy(self.model(images), labels)
            loss.backward()
            self.optimiser.step()
            total += loss.item()


class Ours:
    """`megu.training.loop.fit` over as many epochs of as many images as make n steps."""

    def __init__(self, setting: Setting, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.setting = setting
        self.model = build(setting.model, CLASSES, 3, seed=0).to(setting.device)
        moments = [torch.tensor(values, device=setting.device) for values in (MEAN, STD)]
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(setting.device)
        self.images = ImageSet(images, torch.from_numpy(labels).to(setting.device), *moments)

    def steps(self, count: int) -> None:
        batch = self.setting.batch
        per_epoch = min(count, len(self.images) // batch)
        used = self.images if per_epoch < count else part(self.images, per_epoch * batch)
        params = TrainParams(
            arch=self.setting.model,
            epochs=-(-count // per_epoch),
            batch_size=batch,
            optimiser="sgd",
            lr=RATE,
            schedule="multistep",
            weight_decay=DECAY,
            augment="flip-crop",
            compile=self.setting.compile,  # type: ignore[arg-type]
        )
        fit(self.model, used, params, seed=0)

    def paces(self, count: int, settled: int) -> list[float]:
        """Images a second in each third of what follows the first ``settled`` steps of one training of at least ``count`` steps: without
        what a training does once, which is to compile, to search for kernels and to record a step."""
        marks = Marks(self.setting.batch)
        with listening(marks):
            self.steps(count)
        return marks.paces(settled)

    def taken(self, count: int) -> int:
        """Steps that ``steps(count)`` really takes: whole epochs."""
        per_epoch = min(count, len(self.images) // self.setting.batch)
        return -(-count // per_epoch) * per_epoch


@dataclass
class Marks:
    """Listens to a training, and notes when it goes on after each check of its losses, for which it has waited for the device."""

    batch: int
    found: list[tuple[int, float]] = field(default_factory=list)  # steps done, and seconds of a clock
    done: int = 0

    def start(self, label: str, total: int | None, unit: str) -> Callable[[int], None]:
        return self.advance

    def stop(self, label: str) -> None: ...

    def advance(self, images: int) -> None:
        self.done += images // self.batch
        if images and self.done % LOOK_EVERY == 1:
            self.found.append((self.done, time.perf_counter()))

    def paces(self, settled: int) -> list[float]:
        """Images a second in each third of the training after its first ``settled`` steps."""
        after = [mark for mark in self.found if mark[0] > settled]
        ends = [after[round(k * (len(after) - 1) / 3)] for k in range(4)]
        return [self.batch * (to - since) / (then - at) for (since, at), (to, then) in pairwise(ends)]


def part(images: ImageSet, count: int) -> ImageSet:
    """The first images, not a copy."""
    return ImageSet(images.pixels[:count], images.labels[:count], images.mean, images.std)


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most floating-point operations a second that a product of two large matrices reaches, of several tries and sizes."""
    found = []
    for n, repeats, tries in ((8192, 20, 5), (4096, 100, 5)) if device.type == "cuda" else ((1024, 1, 20), (2048, 1, 4)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

        def products(a: Tensor = a, b: Tensor = b, repeats: int = repeats) -> None:
            for _ in range(repeats):
                torch.mm(a, b)

        products()
        found.append(2 * n**3 * repeats / min(clock(products, device) for _ in range(tries)))
    return max(found)


def flops(setting: Setting) -> float:
    """Floating-point operations of one image's step, forward and backward."""
    model = build(setting.model, CLASSES, 3, seed=0)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(torch.randn(2, 3, SIZE, SIZE)), torch.tensor([0, 1])).backward()
    return counter.get_total_flops() / 2


def optimiser_seconds(setting: Setting, fused: bool) -> float:
    """Median of one step of SGD over the model's weights."""
    model = build(setting.model, CLASSES, 3, seed=0).to(setting.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=MOMENTUM, weight_decay=DECAY, fused=fused)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 1e-3)
    optimiser.step()
    return statistics.median(clock(optimiser.step, setting.device) for _ in range(15))


def measure(setting: Setting, seconds: float, rounds: int) -> dict[str, object]:
    """Everything; the loops in turn."""
    load = os.getloadavg()[0]
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    labels = draw.integers(0, CLASSES, IMAGES)
    ours, ordinary = Ours(setting, pixels, labels), Ordinary(setting, pixels, labels)
    if setting.device.type == "cuda":
        set_deterministic(False)
    blocks: dict[str, list[float]] = {"ours": [], "ordinary": []}
    counts, memory = {}, {}
    warm, probe = (1, 1) if setting.device.type == "cpu" else (4, 50)
    for name, loop in (("ours", ours), ("ordinary", ordinary)):
        loop.steps(warm)  # kernels are chosen, workers started, the model compiled
        counts[name] = max(round(seconds * probe / clock(lambda loop=loop: loop.steps(probe), setting.device)), 2)
    counts["ours"] = ours.taken(counts["ours"])
    fast = fast_dtype(setting.device)
    peaks = dict.fromkeys((fast, torch.float32), 0.0)
    for number in range(rounds):
        # In turn with the loops too, the best of all: what else the machine does must not make the peak look small.
        peaks = {dtype: max(found, product_peak(setting.device, dtype)) for dtype, found in peaks.items()}
        for name, loop in (("ours", ours), ("ordinary", ordinary)):
            forget_peak(setting.device)
            took = clock(lambda name=name, loop=loop: loop.steps(counts[name]), setting.device)
            memory[name] = peak_memory(setting.device)
            blocks[name].append(counts[name] * setting.batch / took)
            print(f"round {number + 1}, {name}: {blocks[name][-1]:,.1f} images/s ({counts[name]} steps)", flush=True)
    medians = {name: statistics.median(values) for name, values in blocks.items()}
    operations = flops(setting)
    plain, one = (optimiser_seconds(setting, fused) for fused in (False, True))
    step = setting.batch / medians["ours"]
    return {
        "ours": medians["ours"],
        "ordinary": medians["ordinary"],
        "ratio": medians["ours"] / medians["ordinary"],
        "blocks": blocks,
        "dtype": str(fast).removeprefix("torch."),
        "peak": peaks[fast] / 1e12,
        "peak_float32": peaks[torch.float32] / 1e12,
        "gflop": operations / 1e9,
        "share": operations * medians["ours"] / peaks[fast],
        "share_ordinary": operations * medians["ordinary"] / peaks[torch.float32],
        "optimiser": plain,
        "optimiser_fused": one,
        "optimiser_saves": (plain - one) / step,
        "memory": memory,
        "load": load,
    }


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    names = re.findall(r"model name\s*: (.*)", cpuinfo())
    threads = torch.get_num_threads()
    return (
        f"{threads} thread{'s' if threads > 1 else ''} of {names[0] if names else platform.processor() or platform.machine()}"
    )


def cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def page(setting: Setting, found: dict[str, object], seconds: float, rounds: int) -> list[str]:
    """The section of the document, or what is printed."""
    blocks, memory = found["blocks"], found["memory"]
    assert isinstance(blocks, dict)
    assert isinstance(memory, dict)
    spread = {name: f"{min(values):,.0f} to {max(values):,.0f}" for name, values in blocks.items()}
    unit = "of the device, tensors" if setting.device.type == "cuda" else "of the whole process, both loops' data in it"
    return [
        f"{setting.model} at {SIZE} x {SIZE}, batch {setting.batch}, {machine(setting.device)}, torch {torch.__version__.split('+')[0]}, "
        f"compile {setting.compile}, {datetime.now(UTC):%Y-%m-%d}; {rounds} turns of about {seconds:g} s each, medians (least to most). "
        f"Load average before: {found['load']:.1f} on {os.cpu_count()} cores.",
        "",
        "| | megu | ordinary loop |",
        "|---|---|---|",
        f"| images a second | {found['ours']:,.0f} ({spread['ours']}) | {found['ordinary']:,.0f} ({spread['ordinary']}) |",
        f"| number format | {found['dtype']} | float32 |",
        f"| share of that format's matrix-product peak | {100 * found['share']:.0f}% of {found['peak']:.2f} TFLOP/s "  # type: ignore[operator]
        f"| {100 * found['share_ordinary']:.0f}% of {found['peak_float32']:.2f} TFLOP/s |",  # type: ignore[operator]
        f"| peak memory ({unit}) | {memory['ours'] / 1e6:,.0f} MB | {memory['ordinary'] / 1e6:,.0f} MB |",
        "",
        f"**megu's loop is {found['ratio']:.2f} times as fast.** A step is {found['gflop']:.2f} GFLOP an image, forward and backward. "
        f"SGD's step takes {1e3 * found['optimiser']:.1f} ms, fused {1e3 * found['optimiser_fused']:.1f} ms: "  # type: ignore[operator]
        f"{100 * found['optimiser_saves']:.1f}% of a step of training.",  # type: ignore[operator]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--model", default="resnet18", help="one of megu's architectures")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn, about")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each loop")
    parser.add_argument("--workers", type=int, default=2, help="of the ordinary loop's DataLoader")
    parser.add_argument("--compile", choices=("on", "off"), default="off", help="have torch compile megu's model")
    parser.add_argument("--document", type=Path, help="write the figures into this page, between its markers")
    chosen = parser.parse_args()
    setting = Setting(resolve(chosen.device), chosen.model, chosen.batch, chosen.workers, chosen.compile)
    lines = page(setting, measure(setting, chosen.seconds, chosen.rounds), chosen.seconds, chosen.rounds)
    print("\n".join(["", *lines]))
    if chosen.document:
        write(chosen.document, setting.device.type, lines)


if __name__ == "__main__":
    main()
