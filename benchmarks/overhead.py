"""What the pipeline costs beside its computing, by source: imports, servers, a stage, a benchmark's cell, a warm run, what is stored.

    python benchmarks/overhead.py [--before FOLDER] [--document docs/operations.md] [--rounds N]

On a made-up data set and a network that is trained on 20 images, so that nearly all of it is the pipeline. Each figure is the median of
some rounds, in seconds of the clock and of the processor: on a busy machine the second one says more. ``--before`` names another checkout,
which is measured round by round beside this one. Prints a table, and a JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import document  # noqa: E402 - the folder above comes first

IMPORTS = {"Python": "pass", "PyTorch": "import torch", "Prefect": "import prefect", "MLflow": "import mlflow"}
IMPORTS |= {"MLflow with its database": "import mlflow.store.tracking.sqlalchemy_store", "megu bench": "import flows.bench"}
PARAMS = """
seed: 0
device: cpu
data: {name: made-up}
forget: {scenario: class, classes: [a]}
train: {arch: resnet-compact, epochs: 1, batch_size: 64}
labeling: {exemplars: 2, references: 2, image_size: 64}
noise: {per_label: 1, steps: 1}
unlearn: {steps: 1, batch_size: 16}
"""
BENCH = """
base:
  device: cpu
  data: {name: made-up}
  train: {arch: resnet-compact, epochs: 1, batch_size: 64}
methods: [finetune]
targets: [{classes: [a]}, {classes: [b]}, {classes: [c]}, {classes: [d]}]
seeds: [0, 1]
"""
#: CIFAR-100's images and classes.
TRAIN, TEST, CLASSES = 50_000, 10_000, 100

#: Name of a figure -> [seconds of the clock, and of the processor where they are known], or bytes.
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--document", type=Path, help="write the table between the markers of this page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--measure", action="store_true", help=argparse.SUPPRESS
    )  # in a process whose code is that of a checkout
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measured()))
        return
    load, found = os.getloadavg()[0], dict[str, list[Figures]]()
    for _ in range(asked.rounds):
        for name, code in (("before", asked.before), ("now", ROOT)):
            if code:
                found.setdefault(name, []).append(in_checkout(code.resolve()))
    every = {name: {figure: middle([one[figure] for one in rounds]) for figure in rounds[0]} for name, rounds in found.items()}
    lines = table(every, asked.rounds, (load, os.getloadavg()[0]))
    print("\n".join(lines))
    if asked.document:
        document.write(asked.document, "overhead", lines)
    print(json.dumps(every))


def in_checkout(code: Path) -> Figures:
    """Measure once, in a process that imports the code of ``code``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "MEGU_"))}
    environment |= {"PYTHONPATH": str(code), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def middle(values: list[Any]) -> Any:
    return [median(column) for column in zip(*values, strict=True)] if isinstance(values[0], list) else median(values)


def measured() -> Figures:
    """Every figure once, in a project of its own."""
    sys.path[:] = [os.environ["PYTHONPATH"], *(entry for entry in sys.path if entry != str(ROOT))]
    # An editable installation would find in its own checkout what the one that is measured does not have.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "").lower()]
    figures: Figures = {f"import: {name}": command("-c", code) for name, code in IMPORTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        os.environ["MEGU_PROJECT"] = str(root)
        os.chdir(root)
        make_project(root)
        megu(root, "bench", "bench.yaml")  # makes both databases
        forget(root)
        figures["bench: to the first stage, no servers up"] = megu(root, "bench", "bench.yaml").until("  dataset: ")
        forget(root)
        began = time.perf_counter()
        subprocess.run(
            program("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port())),
            check=True,
            capture_output=True,
        )
        try:
            figures["servers: megu up"] = [time.perf_counter() - began]
            figures["bench: to the first stage, servers up"] = megu(root, "bench", "bench.yaml").until("  dataset: ")
            figures["bench: a cell of cached stages"] = megu(root, "bench", "bench.yaml").between(", seed ")
            for _ in range(2):
                run = megu(root, "run", "--json")
            figures["run: flow time, all cached"] = [json.loads(run.out)["flow_seconds"]]
            figures["run: the whole command, all cached"] = run.whole
            figures |= stages()
        finally:
            subprocess.run(program("down"), check=True, capture_output=True)
        figures |= stored()
    return figures


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "megu", *arguments]


def command(*arguments: str) -> list[float]:
    """Seconds of the clock and of the processor that a Python process takes."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = os.times()
    return [time.perf_counter() - began, sum(after[2:4]) - sum(before[2:4])]


class Lines:
    """A run of megu: what it wrote, and when (seconds of the clock and of its processor, with its children, at each line).

    whole: both at its end.
    """

    def __init__(self, arguments: list[str]) -> None:
        import psutil

        began, self.at = time.perf_counter(), list[tuple[str, float, float]]()
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        watched, spent = psutil.Process(process.pid), 0.0
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            spent = _spent(watched) or spent
            self.at.append((line, time.perf_counter() - began, spent))
        self.out = process.stdout.read()
        before = os.times()
        if process.wait():
            raise SystemExit("".join(line for line, *_ in self.at))
        after = os.times()
        self.whole = [time.perf_counter() - began, sum(after[2:4]) - sum(before[2:4])]

    def until(self, begins: str) -> list[float]:
        """Both times at the first line that begins so."""
        return next([clock, spent] for line, clock, spent in self.at if line.startswith(begins))

    def between(self, part: str) -> list[float]:
        """The median of both times between one line that has a part and the next."""
        at = [(clock, spent) for line, clock, spent in self.at if part in line]
        steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(at)]
        return middle([list(step) for step in steps])  # type: ignore[no-any-return]


def _spent(process: Any) -> float:
    """Processor seconds of a process and of those that it has started and still run."""
    import psutil

    total = 0.0
    try:
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        return 0.0
    return total


def megu(root: Path, *arguments: str) -> Lines:
    return Lines(program(*arguments))


def forget(root: Path) -> None:
    """The cached results go; databases, and what was read of the sources, stay."""
    for path in (root / ".megu" / "results").glob("*"):
        path.unlink()


def make_project(root: Path) -> None:
    import numpy as np

    from megu.data import arrays, pins

    (root / "params.yaml").write_text(PARAMS)
    (root / "bench.yaml").write_text(BENCH)
    random = np.random.default_rng(0)
    parts = {
        name: (random.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8), np.arange(count) % 4)
        for name, count in (("train", 40), ("test", 200))
    }
    arrays.save(root / "data" / "made-up", name="made-up", classes="abcd", **parts)
    pins.write(root, "made-up", pins.hash_dir(root / "data" / "made-up"))


def stages(count: int = 30) -> Figures:
    """What a stage that computes nothing costs, and what of it is whose. Inside one flow, servers up."""
    from megu.core import project as projects
    from megu.servers.environment import prepare_environment

    here = projects.find()
    prepare_environment(here)
    from prefect import flow, task

    from megu.core.stages import Outcome, Stage
    from megu.tracking import Run
    from tasks.run.engine import Executor, decide

    def nothing(project: Any, number: int) -> Outcome:
        return Outcome(values={"number": number})

    # As if of a module of ours, so that its key is made of as much code as that of others.
    nothing.__module__ = "tasks.original"
    stage, figures = Stage("nothing", "Compute nothing", nothing), dict[str, Any]()

    @task(persist_result=False)
    def bare(number: int) -> int:
        return number

    content = os.urandom(50_000_000)

    @flow(name="overhead")
    def measure() -> None:
        run = Executor(here)
        run(stage, number=-1)  # what only the first of a process costs: importing, and reading the sources
        bare(-1)
        figures["stage: that runs, all of it"] = each(count, lambda number: run(stage, number=number))
        figures["stage: that is cached, all of it"] = each(count, lambda number: run(stage, number=number))
        figures["stage: its key"] = each(count, lambda number: stage.key(stage.parts(stage.bind(here, {"number": number}))))
        figures["stage: its key and the look into the cache"] = each(
            count, lambda number: decide(here, stage, "nothing", {"number": number})
        )
        figures["stage: a Prefect task run alone"] = each(count, bare)
        figures["stage: storing 50 MB"] = each(3, lambda number: here.store.put_bytes("bin", content + bytes([number])))
        ref = here.store.put_bytes("bin", content)
        figures["stage: checking 50 MB"] = each(3, lambda number: here.store.holds(ref))
        figures["cell: an MLflow run with 60 metrics"] = each(5, lambda number: tracked(here, Run, number))

    measure()
    return figures


def tracked(here: Any, run: Any, number: int) -> None:
    begun = run.start(here.home, "overhead", f"run {number}", {"number": number})
    begun.log(params={f"p{n}": n for n in range(60)}, metrics={f"m{n}": float(n) for n in range(60)})
    begun.artifacts({"a.json": b"{}", "b.json": b"{}"})
    begun.finish()


def each(count: int, call: Callable[[int], Any]) -> list[float]:
    """Median seconds of the clock, and mean ones of this process, of a call."""
    clock, began = list[float](), time.process_time()
    for number in range(count):
        start = time.perf_counter()
        call(number)
        clock.append(time.perf_counter() - start)
    return [median(clock), (time.process_time() - began) / count]


def stored() -> Figures:
    """Bytes in the store of an unlearned ResNet-18 for as many images as CIFAR-100 has. It answers at random, since only the sizes count."""
    import numpy as np
    import torch

    from megu import models
    from megu.core.project import find
    from megu.core.stages import Result
    from megu.data import arrays
    from megu.data.splits import ForgetParams, make_split
    from megu.training import loop as training
    from megu.training.weights import ModelInfo
    from tasks.run import cached

    here, random = find(), np.random.default_rng(0)
    parts = {
        name: (random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8), np.arange(count) % CLASSES)
        for name, count in (("train", TRAIN), ("test", TEST))
    }
    loaded = arrays.save(here.data("large"), name="large", classes=[str(k) for k in range(CLASSES)], **parts)
    split = make_split(loaded, ForgetParams(classes=("7",)), 0)
    positions = {name: getattr(split, name) for name in ("forget", "retain", "test_forget", "test_retain")}

    def result(values: dict[str, Any], **files: Any) -> Result:
        return Result("made up", {}, files, values, {}, 0.0, {})

    data = result({"name": "large", "per_class": None, "classes": list(loaded.classes)})
    chosen = result({"scenario": "class", "classes": list(split.classes)}, positions=here.store.put_arrays(positions))
    network = models.build("resnet18", CLASSES, 3, 0, (32, 32))
    outcome = cached.model_outcome(here, network, ModelInfo.of("resnet18", CLASSES, (3, 32, 32), False), {})
    model = result(dict(outcome.values), **outcome.files)

    def answered(model: Any, images: Any, *, features: bool = False, **_: Any) -> Any:
        count = len(images)
        return SimpleNamespace(logits=torch.randn(count, CLASSES), features=torch.rand(count, 512) if features else None)

    with replaced(training, "predict", answered):
        predictions = _predict_unlearned(here, data, chosen, model)
    sizes = {
        "stored: the unlearned model's weights": sum(ref.size for ref in outcome.files.values()),
        "stored: what it predicts": sum(ref.size for ref in predictions.files.values()),
    }
    return {**sizes, "stored: together": sum(sizes.values())}


def _predict_unlearned(here: Any, data: Any, split: Any, model: Any) -> Any:
    from megu.core.stages import Device

    try:
        from tasks.evaluation.condensed import predict
    except ImportError:  # a checkout of before
        from tasks.evaluation.predictions import predict as whole

        return whole(here, data, model, Device("cpu"))
    return predict(here, data, split, model, Device("cpu"))


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def table(every: dict[str, Figures], rounds: int, load: tuple[float, float]) -> list[str]:
    import torch

    names, how = list(every), f"medians of {rounds} rounds" if rounds > 1 else "one round"
    lines = [
        f"{os.cpu_count()} cores, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}; {how}. "
        f"Load average before: {load[0]:.1f}, after: {load[1]:.1f}. Seconds of the clock, in brackets of the processor.",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for figure in every["now"]:
        lines.append(f"| {figure} | {' | '.join(said(every[name][figure]) for name in names)} |")
    return lines


def said(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value / 1e6:,.0f} MB"
    digits = 1 if value[0] >= 1 else 4
    return f"{value[0]:.{digits}f}" + "".join(f" ({each:.{digits}f})" for each in value[1:])


if __name__ == "__main__":
    main()
