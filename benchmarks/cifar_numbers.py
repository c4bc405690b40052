"""The tables of docs/cifar.md, from the benchmark files, the arithmetic and the published numbers: ``python benchmarks/cifar_numbers.py``."""

from __future__ import annotations

from pathlib import Path

import torch
from engine import Setting, flops

from megu.bench.config import load
from megu.bench.expansion import Cell, expand
from megu.bench.published import HEADLINE, SOURCE, published

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("cifar100-class", "cifar20-class", "cifar20-subclass", "cifar10-random")
#: Training images of CIFAR-10, CIFAR-100 and CIFAR-20 alike, and of a class or sub-class that leaves.
IMAGES = 50_000
LEAVE = {"cifar100-class": 500, "cifar20-class": 2500, "cifar20-subclass": 500, "cifar10-random": 100}
METHODS = ("original", "retrain", "finetune", "unsir", "bad_teacher", "random_labels", "ssd", "megu")


def trained(cells: list[Cell], leave: int) -> tuple[int, int, int]:
    """Originals, retrains, and the steps of all of them: an epoch is as many whole batches as the images make."""
    train = cells[0].config.train
    originals, retrains = len({cell.seed for cell in cells}), len({(cell.target, cell.seed) for cell in cells})
    batches = originals * (IMAGES // train.batch_size) + retrains * ((IMAGES - leave) // train.batch_size)
    return originals, retrains, train.epochs * batches


def needs() -> list[str]:
    per_image = flops(Setting(torch.device("cpu"), "resnet18", 128, 0, "off"))
    lines = ["| file | runs | epochs | originals + retrains | steps of 128 | PFLOP |", "|---|---|---|---|---|---|"]
    for name in NAMES:
        cells = expand(load(ROOT / "bench" / f"{name}.yaml"))
        train = cells[0].config.train
        originals, retrains, steps = trained(cells, LEAVE[name])
        work = steps * train.batch_size * per_image / 1e15
        lines.append(f"| `{name}` | {len(cells)} | {train.epochs} | {originals} + {retrains} | {steps:,} | {work:,.0f} |")
    return [*lines, "", f"A step is {per_image / 1e9:.2f} GFLOP an image, forward and backward, as in [engine.md](engine.md)."]


def rows() -> list[str]:
    """The published numbers that each command puts beside its own."""
    lines = [f"| file | target | metric | {' | '.join(METHODS)} |", f"|{'---|' * (len(METHODS) + 3)}"]
    for name in NAMES:
        for target, config in {cell.target: cell.config for cell in expand(load(ROOT / "bench" / f"{name}.yaml"))}.items():
            found = {method: published(config, method) for method in METHODS}
            for metric in (*HEADLINE, "gap"):
                cells = [f"{found[method][metric]:.2f}" if found[method] else "—" for method in METHODS]
                lines.append(f"| `{name}` | {target} | {metric} | {' | '.join(cells)} |")
    return [f"From {SOURCE}; ResNet-18. `gap` is computed from the rows above it.", "", *lines]


if __name__ == "__main__":
    print("\n".join([*needs(), "", *rows()]))
