"""megu on an original that is given with its answers, beside the answers of a true retrain: what does forgetting a class cost, and come to?

For a network whose training takes a GPU, where unlearning it does not:

    python benchmarks/given.py --data data/cifar100 --given FOLDER --arch resnet18 --forget rocket --retrain-passes 1980000

FOLDER has the original's weights (``original*.safetensors``, together one state dictionary), ``logits-original.npz`` and
``logits-retrain.npz``: arrays "train" and "test", logits in the data set's order. Everything else is as `megu run` has it.

The metrics are of the test images that are not in the calibration set, and of ``--members`` retained training images for the attack; all of
them without it. Passes are images through the network forward and backward: noise, rates that are tried, and the re-optimisation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from document import write

from megu.data import arrays
from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.evaluation.attacks.entropy import members_called
from megu.labeling import label
from megu.labeling.prototype import PrototypeLabeler, PrototypeParams
from megu.models import build
from megu.training.loop import counting, predict
from megu.unlearning.labels.calibration import Calibration
from megu.unlearning.labels.calibration_set import CalibrationParams, of_dataset
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.labels.transition import transition_matrix
from megu.unlearning.methods import METHODS, Context
from megu.unlearning.methods.megu import MeguParams
from megu.unlearning.noise import NoiseParams, make_noise_bank, taught

Answers = Mapping[str, NDArray[Any]]
TITLE = ("model", "Ar %", "Af %", "MIA %", "Ar on retained training images %", "gap", "mean H", "rate", "passes", "seconds")


class Case:
    """A class to forget of a given original."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.data = arrays.load(asked.data)
        self.own = self.data.classes.index(asked.forget)
        self.original, self.retrain = (
            {name: np.asarray(said, dtype=np.float64) for name, said in np.load(asked.given / f"logits-{whose}.npz").items()}
            for whose in ("original", "retrain")
        )
        self.labels, self.test_labels = np.asarray(self.data.train.labels), np.asarray(self.data.test.labels)
        self.forget, self.retain = np.flatnonzero(self.labels == self.own), np.flatnonzero(self.labels != self.own)
        self.apart = of_dataset(self.data, CalibrationParams())
        self.measured = np.delete(np.arange(len(self.data.test)), self.apart)
        self.members = np.sort(np.random.default_rng(0).permutation(self.retain)[: asked.members or None])
        state = {
            key: value for part in sorted(asked.given.glob("original*.safetensors")) for key, value in load_file(part).items()
        }
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        size = self.data.image_size
        self.model = build(asked.arch, self.data.num_classes, self.data.channels, 0, (size[0], size[1]))
        self.model.load_state_dict(state)
        self.model.eval()
        device = torch.device(asked.device)
        self.model.to(device)
        self.images, self.test = (
            ImageSet.from_partition(part, self.data.mean, self.data.std, device) for part in (self.data.train, self.data.test)
        )

    def targets(self) -> Perturbing:
        params = PrototypeParams()
        judged = label(
            self.data, PrototypeLabeler(params.temperature, params.image_size), params.exemplars, params.references, params.seed
        )
        calibration = Calibration.of(
            self.original["test"][self.apart], self.test_labels[self.apart], self.original["train"], self.labels, [self.own]
        )
        matrix = transition_matrix(judged.to_arrays()["S"])
        said, labels = self.original["train"][self.forget], self.labels[self.forget]
        return perturb(matrix, said, labels, [self.own], PerturbParams(), calibration)

    def unlearned(self, perturbing: Perturbing, params: MeguParams, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        shape = (self.data.channels, *self.data.image_size)
        noise = NoiseParams()
        bank = make_noise_bank(self.model, taught(perturbing.targets, noise.coverage), shape, [self.own], noise, seed)
        context = Context(
            params=params,
            seed=seed,
            num_classes=self.data.num_classes,
            forgotten=(self.own,),
            perturbing=perturbing,
            noise=bank,
        )
        found = METHODS["megu"].run(self.model, self.images.subset(self.forget), self.images.subset(self.retain), context)
        return found, context.chosen

    def answers(self, model: nn.Module) -> Answers:
        """Of the images that the metrics are of; the others' rows are NaN."""
        found = {}
        for name, images, rows in (
            ("train", self.images, np.union1d(self.forget, self.members)),
            ("test", self.test, self.measured),
        ):
            found[name] = np.full((len(images), self.data.num_classes), np.nan)
            found[name][rows] = predict(model, images.subset(rows)).logits.numpy()
        return found

    def metrics(self, said: Answers) -> dict[str, float]:
        right = {"train": said["train"].argmax(axis=1) == self.labels, "test": said["test"].argmax(axis=1) == self.test_labels}
        kept = self.measured[self.test_labels[self.measured] != self.own]
        gone = self.measured[self.test_labels[self.measured] == self.own]
        sure = {name: entropies(softmax(part)) for name, part in said.items()}
        return {
            "Ar": 100 * float(right["test"][kept].mean()),
            "Af": 100 * float(right["test"][gone].mean()),
            "MIA": members_called(sure["train"][self.members], sure["test"][self.measured], sure["train"][self.forget]),
            "Ar, training": 100 * float(right["train"][self.members].mean()),
            "H": float(sure["train"][self.forget].mean()),
        }


def row(name: str, found: Mapping[str, float], retrain: Mapping[str, float], *more: str) -> str:
    gap = np.mean([abs(found[key] - retrain[key]) for key in ("Ar", "Af", "MIA")])
    numbers = [*(found[key] for key in ("Ar", "Af", "MIA", "Ar, training")), gap, found["H"]]
    return f"| {' | '.join([name, *(f'{number:.2f}' for number in numbers), *(more or ('', '', ''))])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set's folder")
    parser.add_argument("--given", type=Path, required=True, help="the folder of the original and the answers")
    parser.add_argument("--arch", required=True)
    parser.add_argument("--forget", required=True, help="the class")
    parser.add_argument("--retrain-passes", type=int, required=True, help="what the retrain took")
    parser.add_argument("--members", type=int, help="retained training images that the attack is fitted on; all without it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--document", type=Path, help="write the table into this page, between its marks")
    parser.add_argument("--name", default="given", help="of the marks")
    asked = parser.parse_args()
    case = Case(asked)
    retrain = case.metrics(case.retrain)
    begin = time.perf_counter()
    perturbing = case.targets()
    print(
        f"targets in {time.perf_counter() - begin:.0f} s, expected H {np.mean(perturbing.entropies):.2f}; metrics of "
        f"{len(case.measured):,} test images and {len(case.members):,} retained training images",
        flush=True,
    )
    lines = [f"| {' | '.join(TITLE)} |", "|" + "---|" * len(TITLE)]
    lines += [row("original", case.metrics(case.original), retrain), row("true retrain", retrain, retrain)]
    print("\n".join(lines), flush=True)
    for seed in asked.seeds:
        begin = time.perf_counter()
        with counting() as passes:
            model, chosen = case.unlearned(perturbing, MeguParams(), seed)
        seconds = time.perf_counter() - begin
        share = f"{sum(passes):,} ({100 * sum(passes) / asked.retrain_passes:.2f}%)"
        found = case.metrics(case.answers(model))
        lines.append(row(f"megu, seed {seed}", found, retrain, f"{chosen['lr']:.2g}", share, f"{seconds:.0f}"))
        print(lines[-1], chosen, flush=True)
        if asked.document:
            write(asked.document, asked.name, lines)


if __name__ == "__main__":
    main()
