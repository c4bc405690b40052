"""megu on a GPU: is it right there, and how fast is it? One command, at most eight minutes on one H100.

    python benchmarks/gpu.py --out FOLDER [--document docs/engine.md]

Needs torch and numpy alone. Each part runs in a process of its own with its own time limit, so that one failure loses nothing; what it
found is in FOLDER/PART.json, all of it in FOLDER/gpu.md, with the card's name. The parts:

- ``agree``: every method on the CPU and on the device, on a small problem: accuracies and answers.
- ``bits``: in deterministic mode, trainings and methods twice, and once more without recording steps (`megu.training.capture`): the same
weights?
- ``engine``: images a second of a ResNet-18 at three batch sizes: the ordinary loop, megu's as it was (kernel by kernel), recorded, compiled.
- ``cifar100``: where the data is, the original and the retrain by a recipe of 40 epochs, and every method at its defaults against that retrain:
seconds and metrics, for as many classes as its time allows. Nobody is asked how similar the classes look.
- ``methods``: where it is not, seconds of every method on 50,000 made-up images of its shape, beside an epoch of training.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import megu
from benchmarks import engine
from benchmarks.document import write
from megu import models
from megu.core.device import CPU, SEARCH_FROM, resolve, set_deterministic
from megu.data.tensors import ImageSet
from megu.evaluation import HEADLINE
from megu.training.capture import eagerly
from megu.training.loop import LOOK_EVERY, TrainParams, predict, train
from megu.training.weights import digest
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.methods import METHODS, Context
from megu.unlearning.noise import NoiseParams, make_noise_bank

#: Seconds that each part may take: eight minutes in all.
LIMITS = {"agree": 90, "bits": 90, "engine": 150, "cifar100": 150, "methods": 150}
#: Steps of the trainings whose pace is measured: as many as a training has in which cuDNN searches for the fastest kernels. In the first of
#: them the model is compiled, kernels are searched for and a step is recorded: these are left out.
LONG, SETTLED = SEARCH_FROM, 400
CLASSES, FORGOTTEN = 10, (3,)
#: The data set, made by `megu data fetch`, and what is forgotten of it, one request each: the paper's classes.
CIFAR100 = Path(__file__).resolve().parents[1] / "data" / "cifar100"
NAMED = ("rocket", "mushroom", "baby", "lamp", "sea")
SMALL = TrainParams(epochs=6, batch_size=64, augment="none")
#: Points of accuracy, and mean distance between the answers' probabilities, that the CPU and a device computing in bfloat16 may be apart.
ACCURACY, ANSWERS = 5.0, 0.05


def small(count: int = 2000) -> ImageSet:
    """Ten classes of noisy 32 x 32 pictures, each around its own; every tenth label is drawn, so that there is something to memorise."""
    draw = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    own = draw.normal(size=(CLASSES, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    pixels = 128 + 25 * own[labels] + 45 * draw.normal(size=(count, 3, 32, 32))
    labels = np.where(draw.random(count) < 0.1, draw.integers(0, CLASSES, count), labels)
    images = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).contiguous(memory_format=torch.channels_last)
    return ImageSet(images, torch.from_numpy(labels), torch.full((3,), 0.5), torch.full((3,), 0.25))


def on(images: ImageSet, device: torch.device) -> ImageSet:
    return ImageSet(*(entry.to(device) for entry in (images.pixels, images.labels, images.mean, images.std)))


class Request:
    """Forgetting `FORGOTTEN` from a model, on one device."""

    def __init__(self, original: nn.Module, images: ImageSet, device: torch.device, classes: int, recipe: TrainParams) -> None:
        self.original, self.classes, self.recipe = copy.deepcopy(original).to(device), classes, recipe
        mine = np.isin(images.labels.numpy(), FORGOTTEN)
        self.forget, self.retain = (on(images.subset(np.flatnonzero(part)), device) for part in (mine, ~mine))
        labels = self.forget.labels.cpu().numpy()
        said = predict(self.original, self.forget).logits.numpy()
        even = np.full((classes, classes), 1 / classes)
        self.perturbing = perturb(even, said, labels, FORGOTTEN, PerturbParams(sharpness=1.0))
        shape = self.forget.shape
        self.bank = make_noise_bank(self.original, range(min(classes, 10)), shape, FORGOTTEN, NoiseParams(), seed=0)

    def unlearned(self, method: str) -> nn.Module:
        height, width = self.forget.shape[1:]
        context = Context(
            params=METHODS[method].params(),
            seed=0,
            num_classes=self.classes,
            forgotten=FORGOTTEN,
            perturbing=self.perturbing,
            noise=self.bank,
            fresh=lambda: models.fresh(self.recipe.arch, self.classes, 3, (height, width)),
            recipe=self.recipe,
        )
        return METHODS[method].run(self.original, self.forget, self.retain, context)


def clock(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What ``work`` returns, and the seconds until the device has done it."""
    begin = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - begin


def agree(device: torch.device, out: Callable[[Any], None], quick: bool) -> None:
    images = small(400 if quick else 2000)
    original = train(images, SMALL, CLASSES, seed=0)
    here, there = (Request(original, images, place, CLASSES, SMALL) for place in (CPU, device))
    for method in METHODS:
        one, other = here.unlearned(method), there.unlearned(method).to("cpu")
        row: dict[str, Any] = {"method": method}
        for name, part in (("forget", here.forget), ("retain", here.retain)):
            answers = [predict(model, part).logits for model in (one, other)]
            right = [100 * float((said.argmax(1) == part.labels).float().mean()) for said in answers]
            apart = float((answers[0].softmax(1) - answers[1].softmax(1)).abs().sum(1).mean() / 2)
            row |= {f"{name} CPU %": right[0], f"{name} device %": right[1], f"{name} apart": apart}
        row["agrees"] = all(abs(row[f"{name} CPU %"] - row[f"{name} device %"]) <= ACCURACY for name in ("forget", "retain"))
        out(row)


def bits(device: torch.device, out: Callable[[Any], None], quick: bool) -> None:
    set_deterministic(True)
    images = on(small(400 if quick else 2000), device)
    recipes = {
        "train, resnet-compact, AdamW": SMALL,
        "train, resnet18, SGD, flip and crop": replace(
            SMALL, arch="resnet18", optimiser="sgd", lr=0.05, augment="flip-crop", epochs=2
        ),
        "train, vit-tiny, AdamW": replace(SMALL, arch="vit-tiny", lr=1e-3, epochs=2),
    }
    work: dict[str, Callable[[], nn.Module]] = {
        name: lambda recipe=recipe: train(images, recipe, CLASSES, seed=0)  # type: ignore[misc]
        for name, recipe in recipes.items()
    }
    request = Request(train(images, SMALL, CLASSES, seed=0).cpu(), on(images, CPU), device, CLASSES, SMALL)
    work |= {name: lambda name=name: request.unlearned(name) for name in METHODS}  # type: ignore[misc]
    for name, run in work.items():
        row: dict[str, Any] = {"work": name}
        try:
            first, seconds = clock(run, device)
            again = run()
            with eagerly():
                plain, slower = clock(run, device)
        except RuntimeError as error:
            row["error"] = str(error).split("\n")[0]
        else:
            row |= {"twice the same": digest(first) == digest(again), "as without recording": digest(first) == digest(plain)}
            row |= {"seconds": seconds, "seconds without recording": slower}
        out(row)


def speeds(device: torch.device, out: Callable[[Any], None], quick: bool) -> None:
    """Recorded steps at their pace within one long training; the other loops, which have nothing to record, in short turns."""
    draw = np.random.default_rng(0)
    count = 2000 if quick else engine.IMAGES
    pixels = draw.integers(0, 256, (count, engine.SIZE, engine.SIZE, 3), dtype=np.uint8)
    labels = draw.integers(0, engine.CLASSES, count)
    set_deterministic(False)
    model = "resnet-compact" if quick else "resnet18"
    peak = engine.product_peak(device, engine.fast_dtype(device))
    for batch in (26,) if quick else (26, 128, 512):
        settings = {name: engine.Setting(device, model, batch, 8, name) for name in ("off", "on")}
        others: dict[str, Any] = {"kernel by kernel": engine.Ours(settings["off"], pixels, labels)}
        recorded = {"recorded": engine.Ours(settings["off"], pixels, labels)}
        if not quick:
            recorded["recorded and compiled"] = engine.Ours(settings["on"], pixels, labels)
            if batch > 26:
                others["ordinary"] = engine.Ordinary(settings["off"], pixels, labels)
        with eagerly():
            rates, steps = in_turns(others, batch, device, quick)
        for name, loop in recorded.items():
            steps[name], settled = (8 * LOOK_EVERY, LOOK_EVERY) if quick else (LONG, SETTLED)
            rates[name] = loop.paces(steps[name], settled)
        work = engine.flops(settings["off"])
        for name, found in rates.items():
            middle = statistics.median(found)
            out(
                {
                    "batch": batch,
                    "loop": name,
                    "images/s": middle,
                    "least": min(found),
                    "most": max(found),
                    "share of the bfloat16 peak %": 100 * work * middle / peak,
                    "against the ordinary": middle / statistics.median(rates["ordinary"]) if "ordinary" in rates else None,
                    "steps": steps[name],
                }
            )
    out({"peak TFLOP/s": peak / 1e12})


def in_turns(
    loops: dict[str, Any], batch: int, device: torch.device, quick: bool
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Images a second of each loop in turns of about a second, and the steps of a turn."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    steps = {}
    for name, loop in loops.items():
        loop.steps(40)  # workers are started
        _, seconds = clock(lambda loop=loop: loop.steps(100), device)
        wanted = 40 if quick else max(int(100 * 1.2 / seconds), 60)
        steps[name] = loop.taken(wanted) if isinstance(loop, engine.Ours) else wanted
    for _ in range(1 if quick else 3):
        for name, loop in loops.items():
            _, seconds = clock(lambda loop=loop, taken=steps[name]: loop.steps(taken), device)
            rates[name].append(batch * steps[name] / seconds)
    return rates, steps


def costs(device: torch.device, out: Callable[[Any], None], quick: bool) -> None:
    draw = np.random.default_rng(0)
    count, classes, arch = (2000, 100, "resnet-compact") if quick else (50_000, 100, "resnet18")
    pixels = torch.from_numpy(draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    images = ImageSet(pixels, torch.arange(count) % classes, torch.full((3,), 0.5), torch.full((3,), 0.25))
    recipe = TrainParams(arch=arch, epochs=1, batch_size=128, optimiser="sgd", lr=0.01, augment="flip-crop")
    there = on(images, device)
    train(there.subset(np.arange(1280)), recipe, classes, seed=0)
    original, epoch = clock(lambda: train(there, recipe, classes, seed=0), device)
    out({"work": "an epoch of training, batch 128", "seconds": epoch})
    request = Request(original.cpu(), images, device, classes, recipe)
    for name in METHODS:
        if name != "retrain":
            _, seconds = clock(lambda name=name: request.unlearned(name), device)
            out({"work": name, "seconds": seconds, "epochs": seconds / epoch})


def cifar100(device: torch.device, out: Callable[[Any], None], quick: bool) -> None:
    data, names, arch, epochs = megu.Dataset.load(CIFAR100), NAMED, "resnet18", 40
    if quick:
        parts = [(part.images[::step], part.labels[::step]) for part, step in ((data.train, 20), (data.test, 10))]
        data, names, arch, epochs = megu.Dataset.of(*parts, data.classes), NAMED[:1], "resnet-compact", 2
    recipe = TrainParams(
        arch=arch, epochs=epochs, batch_size=512, optimiser="sgd", lr=0.4, weight_decay=5e-4, augment="flip-crop"
    )
    images = ImageSet.from_partition(data.train, data.mean, data.std, device)
    original, seconds = clock(lambda: train(images, recipe, data.num_classes, seed=0), device)

    def fresh() -> nn.Module:
        return models.fresh(arch, data.num_classes, data.channels, data.image_size)

    def measured(split: Any, method: str, model: nn.Module, reference: nn.Module, seconds: float) -> dict[str, Any]:
        found = megu.evaluate(model, data, split, reference, original=original, device=str(device))
        return {"method": method, **{name: found.metrics[name] for name in HEADLINE}, "gap": found.gap, "seconds": seconds}

    for name in names:
        split = megu.forget(data, classes=[name])
        kept = images.subset(split.retain.positions)
        retrain, again = clock(partial(train, kept, recipe, data.num_classes, seed=0), device)
        out({"forgotten": name, **measured(split, "original", original, retrain, seconds)})
        out({"forgotten": name, **measured(split, "retrain", retrain, retrain, again)})
        asked = {"forget": split.forget, "retain": split.retain, "labeler": None, "recipe": recipe, "fresh": fresh}
        for method in METHODS:
            if method != "retrain":
                found, whole = clock(partial(megu.unlearn, original, method=method, device=str(device), **asked), device)
                out({"forgotten": name, **measured(split, method, found.model, retrain, whole)})


PARTS = {"agree": agree, "bits": bits, "engine": speeds, "cifar100": cifar100, "methods": costs}


def table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def said(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "**no**"
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return "" if value is None else str(value)

    return ["", f"| {' | '.join(names)} |", "|" + "---|" * len(names)] + [
        f"| {' | '.join(said(row.get(name)) for name in names)} |" for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    usual = [part for part in PARTS if part != ("methods" if CIFAR100.is_dir() else "cifar100")]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=usual)
    parser.add_argument("--quick", action="store_true", help="everything at a small size, to try the script")
    parser.add_argument("--document", type=Path, help="write the tables into this page, between its marks")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.only:
        rows: list[Any] = []
        place = asked.out / f"{asked.only}.json"

        def out(row: Any) -> None:
            rows.append(row)
            place.write_text(json.dumps(rows, indent=1))
            print(asked.only, row, flush=True)

        PARTS[asked.only](resolve(asked.device), out, asked.quick)
        return
    device = resolve(asked.device)
    lines = [
        f"{engine.machine(device)}, torch {torch.__version__.split('+')[0]}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}."
    ]
    for part in asked.parts:
        command = [sys.executable, __file__, "--only", part, "--out", str(asked.out), "--device", asked.device]
        begin = time.perf_counter()
        try:
            done = subprocess.run([*command, *(["--quick"] if asked.quick else [])], timeout=LIMITS[part], check=False)
            end = "" if not done.returncode else f" It failed (exit status {done.returncode})."
        except subprocess.TimeoutExpired:
            end = f" It was stopped after {LIMITS[part]} s."
        place = asked.out / f"{part}.json"
        lines += ["", f"**{part}**, {time.perf_counter() - begin:.0f} s.{end}"]
        lines += table(json.loads(place.read_text())) if place.is_file() else []
        (asked.out / "gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if asked.document:
        write(asked.document, "gpu", lines)


if __name__ == "__main__":
    main()
