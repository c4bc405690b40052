"""How well does the calibration set tell how sure a retrain is of a class that it never saw?

An original is trained on everything, and a few models without some classes each: for each of these classes such a model is a retrain. What
`megu.unlearning.labels.calibration` reads off the original's answers to held-out images stands beside what the retrain does: the mean
entropy of its answers to the class's training images, and the share of them that the entropy attack on it calls members.

    python benchmarks/sureness.py --data data/cifar100 --per-class 250           # two models without ten classes each: 12 minutes on two cores
    python benchmarks/sureness.py --data data/fashion-mnist --per-class 1000 --epochs 24 --groups 5 --classes 1
    python benchmarks/sureness.py --data data/cifar100 --original O.npz --retrain R.npz --without rocket    # answers that are there already

The last form takes files with the arrays "train" and "test", logits in the data set's order.

--redraws N tells what is chance in that from what is not: the same is read off N calibration sets of the same size that are drawn from all test
images. What a class is off whichever is drawn, more images would not mend.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from document import write

from megu.data import arrays
from megu.data.arrays import Dataset
from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.evaluation.attacks.entropy import members_called
from megu.training.loop import TrainParams, predict, train
from megu.unlearning.labels.calibration import Calibration, ranks, struck_out
from megu.unlearning.labels.calibration_set import CalibrationParams, Positions, of_dataset, select

Answers = Mapping[str, NDArray[Any]]
#: Mean entropy in nats of the original with the class struck out, as expected, and of the retrain; then the MIA in percent of each.
Numbers = tuple[float, ...]


def answers(data: Dataset, recipe: TrainParams, without: list[int], seed: int) -> Answers:
    """Logits for all training and test images of a model that was trained without some classes."""
    parts = {
        name: ImageSet.from_partition(getattr(data, name), data.mean, data.std, torch.device("cpu"))
        for name in ("train", "test")
    }
    kept = np.flatnonzero(~np.isin(data.train.labels, without))
    label = f"train without {len(without)} classes" if without else "train the original"
    model = train(parts["train"].subset(kept), recipe, data.num_classes, seed, label=label)
    return {name: predict(model, images).logits.numpy() for name, images in parts.items()}


def calibration_sets(data: Dataset, share: float, redraws: int, seed: int) -> list[Positions]:
    """The calibration set that megu uses, then as many again as ``redraws``, of the same size, drawn from all test images."""
    groups = data.test.labels if data.test.fine is None else data.test.fine
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(groups)) for _ in range(redraws)]
    return [of_dataset(data, CalibrationParams(share=share)), *(order[select(groups[order], share)] for order in orders)]


def compared(
    data: Dataset, original: Answers, retrain: Answers, without: list[int], apart: Positions
) -> Iterator[tuple[str, Numbers]]:
    """Each class that the retrain never saw: what is expected by the calibration set at ``apart``, and what the retrain does."""
    measured = np.delete(np.arange(len(data.test)), apart)
    train_labels, test_labels = np.asarray(data.train.labels), np.asarray(data.test.labels)
    found = Calibration.of(original["test"][apart], test_labels[apart], original["train"], train_labels, without)
    assert found is not None, "no image is set apart"
    sure = {name: entropies(softmax(said)) for name, said in retrain.items()}
    members = sure["train"][~np.isin(train_labels, without)]
    for own in without:
        # The other classes that it never saw are no part of a retrain's world.
        others = sure["test"][measured[~np.isin(test_labels[measured], [k for k in without if k != own])]]
        mine = train_labels == own
        classes = train_labels[mine]
        struck = entropies(struck_out(original["train"][mine], classes, without))
        expected = found.unseen(classes, ranks(struck, classes))
        yield (
            data.classes[own],
            (
                *(float(entry.mean()) for entry in (struck, expected, sure["train"][mine])),
                *(members_called(members, others, entry) for entry in (struck, expected, sure["train"][mine])),
            ),
        )


def table(found: list[tuple[str, Numbers]]) -> list[str]:
    """Markdown: a row for each class, and how far what is expected is from the retrain on average."""
    numbers = np.array([of_class for _, of_class in found])
    rows = [
        (name, *(f"{number:.2f}" if at < 3 else f"{number:.1f}" for at, number in enumerate(of_class)))
        for name, of_class in found
    ]
    off = {at: np.abs(numbers[:, at] - numbers[:, 2 if at < 3 else 5]).mean() for at in (0, 1, 3, 4)}
    title = ("class", "H, struck out", "H, expected", "H, retrain", "MIA %, struck out", "MIA %, expected", "MIA %, retrain")
    last = ("*mean distance to the retrain*", f"{off[0]:.2f}", f"{off[1]:.2f}", "", f"{off[3]:.1f}", f"{off[4]:.1f}", "")
    return [f"| {' | '.join(row)} |" for row in (title, ("---",) * len(title), *rows, last)]


def chance(found: list[list[tuple[str, Numbers]]]) -> str:
    """How far the expected MIA is from the retrain's over all the calibration sets, (sets, classes), and how much of it is the draw."""
    numbers = np.array([[of_class for _, of_class in of_set] for of_set in found])
    off = numbers[:, :, 4] - numbers[:, :, 5]
    return (
        f"over {len(off)} other calibration sets the expected MIA is {np.abs(off).mean():.1f} points from the retrain's; whichever is drawn, "
        f"{np.abs(off.mean(axis=0)).mean():.1f} points a class, and from one to the next it varies by {off.std(axis=0).mean():.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set's folder")
    parser.add_argument("--per-class", type=int, help="training images of each class; all without it")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--groups", type=int, default=2, help="models that are trained without some classes")
    parser.add_argument("--classes", type=int, default=10, help="how many each is trained without")
    parser.add_argument("--share", type=float, default=CalibrationParams().share, help="of the test images that is set apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--original", type=Path, help="logits, instead of training an original")
    parser.add_argument("--retrain", type=Path, help="logits of its retrain")
    parser.add_argument("--without", nargs="+", default=[], help="the classes that the retrain never saw")
    parser.add_argument("--redraws", type=int, default=0, help="calibration sets to draw beside megu's own")
    parser.add_argument("--document", type=Path, help="write the table into this page, between its marks")
    asked = parser.parse_args()
    if not 0 < asked.share <= 0.9:
        parser.error("--share must be above 0 and at most 0.9: without calibration images there is nothing to compare")
    data = arrays.limited(arrays.load(asked.data), asked.per_class)
    if asked.original:
        original, retrain = (
            {name: np.asarray(np.load(path)[name], dtype=np.float64) for name in ("train", "test")}
            for path in (asked.original, asked.retrain)
        )
        retrains = [([data.classes.index(name) for name in asked.without], retrain)]
    else:
        recipe = TrainParams(epochs=asked.epochs, augment="none")
        original = answers(data, recipe, [], asked.seed)
        drawn = np.random.default_rng(asked.seed).permutation(data.num_classes)[: asked.groups * asked.classes]
        retrains = [
            (without, answers(data, recipe, without, asked.seed))
            for without in drawn.reshape(asked.groups, asked.classes).tolist()
        ]
    found = [
        [row for without, retrain in retrains for row in compared(data, original, retrain, without, apart)]
        for apart in calibration_sets(data, asked.share, asked.redraws, asked.seed)
    ]
    lines = table(found[0])
    print("\n".join(lines))
    if asked.redraws:
        print(chance(found[1:]))
    if asked.document:
        write(asked.document, "sureness", lines)


if __name__ == "__main__":
    main()
