"""The deep checks on networks that only hide a class, and on true retrains: what `gate.deep_margin` has to tell apart.

For each class and seed an original whose output for the class is struck out, and a retrain without the class; 1,000 images a class of
Fashion-MNIST, ten epochs. The first table has every value, the second how far retrains of different seeds are apart and how far every
struck-out network is above every retrain.

    python benchmarks/hidden.py [FOLDER OF data/fashion-mnist]
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from megu.data import arrays
from megu.data.tensors import ImageSet
from megu.evaluation.deep import check, draw
from megu.evaluation.gate import DEEP
from megu.evaluation.params import DeepParams
from megu.training.loop import TrainParams, train

CLASSES, SEEDS = ("Sneaker", "Bag", "Shirt"), (0, 1, 2)
RECIPE = TrainParams(epochs=10, augment="none")


def struck_out(model: nn.Module, target: int) -> nn.Module:
    """The model with nothing but its output for one class removed."""
    hidden = copy.deepcopy(model)
    with torch.no_grad():
        hidden.head.weight[target] = 0  # type: ignore[union-attr, operator, index]
        hidden.head.bias[target] = -30  # type: ignore[union-attr, operator, index]
    return hidden


def main(folder: Path) -> None:
    loaded = arrays.limited(arrays.load(folder), 1000)
    images, test = (
        ImageSet.from_partition(part, loaded.mean, loaded.std, torch.device("cpu")) for part in (loaded.train, loaded.test)
    )
    originals = [train(images, RECIPE, loaded.num_classes, seed) for seed in SEEDS]
    metrics = [metric for metric, _ in DEEP.values()]
    apart, above = dict.fromkeys(metrics, 0.0), dict.fromkeys(metrics, 100.0)
    for name in CLASSES:
        target = loaded.classes.index(name)
        forget, retain = (np.flatnonzero(found) for found in ((loaded.train.labels == target), (loaded.train.labels != target)))
        drawn = draw(images, test, forget, retain, np.flatnonzero(loaded.test.labels != target), seed=0)
        hidden, retrained = [], []
        for seed, original in zip(SEEDS, originals, strict=True):
            again = train(images.subset(retain), RECIPE, loaded.num_classes, seed)
            for kind, found, model in (("hidden", hidden, struck_out(original, target)), ("retrain", retrained, again)):
                found.append(check(model, drawn, loaded.num_classes, DeepParams(), seed=0))
                print(name, f"seed {seed}", kind, *(f"{metric} {found[-1][metric]:.1f}" for metric in metrics), flush=True)
        for metric in metrics:
            ours, theirs = ([entry[metric] for entry in found] for found in (hidden, retrained))
            apart[metric] = max(apart[metric], max(theirs) - min(theirs))
            above[metric] = min(above[metric], min(ours) - max(theirs))
    for metric in metrics:
        print(f"{metric}: retrains up to {apart[metric]:.1f} points apart, hidden at least {above[metric]:.1f} above")


if __name__ == "__main__":
    main(Path((sys.argv[1:] or ["data/fashion-mnist"])[0]))
