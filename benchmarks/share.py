"""What share of its retrain's time an unlearning takes, at full size, without doing either: seconds an image of each, times images.

The time of a step depends on sizes, not on what a model knows, so random pixels and fresh weights serve. Training, the noise and the
re-optimisation take turns, so that a slow moment of the machine meets them all; how many images each passes through the network is
arithmetic. One class of a benchmark's data set is forgotten. Needs torch and what reads a benchmark file.

``python benchmarks/share.py [--bench bench/cifar100-class.yaml] [--device cuda] [--rounds 3] [--document docs/cifar.md]``
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from document import write
from engine import CLASSES, IMAGES, SIZE, Ours, Setting, clock, machine, part

from megu.bench.config import load
from megu.bench.expansion import expand
from megu.config import Config
from megu.device import resolve
from megu.methods import lookup
from megu.methods.context import Context
from megu.noise import NoiseBank, make_noise_bank
from megu.perturbing import Perturbing

#: The repository.
ROOT = Path(__file__).resolve().parents[1]
#: The most that the unlearning may take of the retrain's time.
ASKED = 0.05


@dataclass(frozen=True)
class Passes:
    """How many images go forward and backward through the network in each part, at full size."""

    retrain: int
    noise: int
    unlearn: int
    proxy: int


def passes(config: Config) -> Passes:
    forget = IMAGES // CLASSES
    params = config.unlearn.params
    retrain = (IMAGES - forget) * config.train.epochs
    kept = min(params.retain_samples, IMAGES - forget)
    noise = (CLASSES + 1) * config.noise.per_label * config.noise.steps
    return Passes(retrain, noise, (forget + kept) * params.epochs, round(config.proxy.share * retrain))


class Parts:
    """The three parts at a small size; each returns how many images it passed through the network."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        draw = np.random.default_rng(0)
        count = 4096
        pixels = draw.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        self.batch = config.train.batch_size
        setting = Setting(device, config.train.arch, self.batch, 0, "off")
        self.training = Ours(setting, pixels, draw.integers(0, CLASSES, count))
        self.bank = self._noise(1)

    def _noise(self, steps: int) -> NoiseBank:
        small = replace(self.config.noise, per_label=1, steps=steps)
        return make_noise_bank(self.training.model, CLASSES, (3, SIZE, SIZE), [0], small, 0)

    def train(self, steps: int) -> int:
        self.training.steps(steps)
        return self.training.taken(steps) * self.batch

    def noise(self, steps: int) -> int:
        self._noise(steps)
        return (CLASSES + 1) * steps

    def unlearn(self, steps: int) -> int:
        """A batch has as many forget samples as at full size, one in twenty-one."""
        size = self.config.unlearn.params.batch_size
        number = steps * size
        forget = part(self.training.images, max(number // 21, 1))
        forget.labels.fill_(0)
        reasoning = np.full((len(forget), CLASSES), 1 / (CLASSES - 1))
        reasoning[:, 0] = 0
        perturbing = Perturbing(np.ones(len(forget), dtype=np.int64), reasoning.astype(np.float32), reasoning, 1.0, 3.0)
        params = replace(self.config.unlearn.params, epochs=1, retain_samples=number - len(forget))
        context = Context(params, 0, CLASSES, (0,), perturbing=perturbing, noise=self.bank)
        lookup("megu").run(self.training.model, forget, self.training.images, context)
        return number


def measure(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, float]:
    """Seconds an image of each part, the median of the rounds."""
    parts = Parts(config, device)
    work = {"train": parts.train, "noise": parts.noise, "unlearn": parts.unlearn}
    counts, found = {}, {name: list[float]() for name in work}
    for name, run in work.items():
        run(1)
        counts[name] = min(max(round(seconds / clock(lambda run=run: run(2), device) * 2), 2), 15)
    for number in range(rounds):
        for name, run in work.items():
            passed: list[int] = []
            took = clock(lambda run=run, name=name, passed=passed: passed.append(run(counts[name])), device)
            found[name].append(took / passed[0])
            print(f"round {number + 1}, {name}: {passed[0] / took:,.1f} images/s", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def page(config: Config, device: torch.device, per_image: dict[str, float], load_before: float) -> list[str]:
    count = passes(config)
    retrain = count.retrain * per_image["train"]
    noise, unlearn = count.noise * per_image["noise"], count.unlearn * per_image["unlearn"]
    proxy = count.proxy * per_image["train"]
    epoch = retrain / config.train.epochs
    least = math.ceil((noise + unlearn) / ASKED / epoch)
    rows = [
        (f"retrain, {config.train.epochs} epochs", count.retrain, per_image["train"], retrain),
        ("noise", count.noise, per_image["noise"], noise),
        ("re-optimisation", count.unlearn, per_image["unlearn"], unlearn),
        (f"proxy of {config.proxy.share:.0%}, where one is made", count.proxy, per_image["train"], proxy),
    ]
    return [
        f"{config.train.arch} at {SIZE} x {SIZE}, {CLASSES} classes of {IMAGES // CLASSES}, one forgotten; {machine(device)}, torch "
        f"{torch.__version__.split('+')[0]}, {datetime.now(UTC):%Y-%m-%d}. Load average before: {load_before:.1f} on {os.cpu_count()} cores.",
        "",
        "| part | images through the network | measured, images a second | hours, computed | of the retrain |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {n:,} | {1 / each:,.0f} | {hours / 3600:.2f} | {hours / retrain:.1%} |"
            for name, n, each, hours in rows
        ),
        "",
        f"**Noise and re-optimisation take {(noise + unlearn) / retrain:.1%} of the retrain's time, with the proxy "
        f"{(noise + unlearn + proxy) / retrain:.1%}.** Without it they stay under "
        f"{ASKED:.0%} with every recipe of {least} epochs or more.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=ROOT / "bench" / "cifar100-class.yaml")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each part")
    parser.add_argument("--seconds", type=float, default=10, help="of each turn, about")
    parser.add_argument("--document", type=Path, help="write the table into this page, between its markers")
    chosen = parser.parse_args()
    device, before = resolve(chosen.device), os.getloadavg()[0]
    config = next(cell.config for cell in expand(load(chosen.bench)) if cell.config.unlearn.method == "megu")
    lines = page(config, device, measure(config, device, chosen.rounds, chosen.seconds), before)
    print("", *lines, sep="\n")
    if chosen.document:
        write(chosen.document, "share", lines)


if __name__ == "__main__":
    main()
