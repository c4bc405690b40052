"""Train the original of a project on several devices, started by torch's own launcher:

``torchrun --nproc-per-node 4 -m megu.cli.train_distributed --out original.safetensors``, then
``megu run --set original.weights=original.safetensors``.

The recipe, the seed, the data set and the device come from the configuration. See `megu.training.distributed` for what is the same as in
one process.
"""

from __future__ import annotations

import argparse
import glob
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from megu.config import tree as configuration
from megu.config.tree import Config
from megu.core import sources
from megu.core.device import device_class, measured, set_deterministic
from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.progress import Advance, listening
from megu.core.project import Project, find
from megu.core.stages import Device
from megu.data import arrays
from megu.data.tensors import ImageSet
from megu.training.distributed import World, joined, world
from megu.training.loop import train
from megu.training.weights import ModelInfo, digest, save_weights

#: Seconds between two lines of progress.
LINE_EVERY_S = 10.0


class Lines:
    """Prints progress as lines, which a launcher can forward; only on rank 0."""

    def start(self, label: str, total: int | None, unit: str) -> Advance:
        begun = printed = time.monotonic()
        first = done = 0

        def advance(amount: int) -> None:
            nonlocal done, first, printed
            first, done = first or amount, done + amount
            now = time.monotonic()
            if now - printed >= LINE_EVERY_S:
                printed = now
                print(f"{label}: {done:,} of {total:,} {unit}, {(done - first) / (now - begun):,.0f} a second", flush=True)

        return advance

    def stop(self, label: str) -> None: ...


class Silent(Lines):
    def start(self, label: str, total: int | None, unit: str) -> Advance:
        return lambda amount: None


def train_original(project: Project, config: Config, out: Path) -> None:
    """Train in this process and in those that the launcher started beside it; rank 0 writes the weights to ``out``."""
    with joined(config.device) as device:
        if device.type == "cuda":
            set_deterministic(config.deterministic)
        data = arrays.limited(arrays.load(project.data(config.data.name)), config.data.per_class)
        images = ImageSet.from_partition(data.train, data.mean, data.std, device)
        info = ModelInfo.of(config.train.arch, data.num_classes, images.shape, config.train.pretrained)
        own = world()
        checkpoint = checkpoint_of(out, config, own)
        with listening(Lines() if own.rank == 0 else Silent()):
            model, cost = measured(
                lambda: train(images, config.train, data.num_classes, config.seed, checkpoint=checkpoint),
                device,
            )
        if own.rank == 0:
            save_weights(out, model, info)
            print(
                f"{out}: {digest(model)[:16]}, {own.size} processes on {device.type}, {cost.seconds:.1f} s, "
                f"{cost.peak_memory_bytes / 1e6:,.0f} MB at most in the first",
                flush=True,
            )


def checkpoint_of(out: Path, config: Config, own: World) -> Path:
    """Return where the training stores its state: one file for the combination of code, packages, device and number of processes, since
    another combination would give different weights. Checkpoints of other combinations are removed.
    """
    depends = {**sources.closure("megu.cli.train_distributed"), **config.train.code(), "processes": own.size}
    depends["device"] = device_class(Device.of(config.device, config.deterministic))
    path = out.with_name(f"{out.name}-{sha256(canonical_json(depends)).hexdigest()[:16]}.checkpoint")
    for other in out.parent.glob(f"{glob.escape(out.name)}-*.checkpoint"):
        if other != path and own.rank == 0:
            other.unlink(missing_ok=True)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc-per-node N -m megu.cli.train_distributed", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="where the weights are written (safetensors)")
    parser.add_argument("--params", type=Path, help="configuration file (default: the project's params.yaml)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="as for megu run")
    chosen = parser.parse_args(arguments)
    try:
        project = find()
        train_original(project, configuration.load(chosen.params or project.params, chosen.settings), chosen.out)
    except MeguError as error:
        print(f"megu: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
