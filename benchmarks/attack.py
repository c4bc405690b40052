"""The attacks, timed beside the usual public way, on the 60,000 training and 10,000 test images of Fashion-MNIST, in one run.

    python benchmarks/attack.py                        # two networks, a few minutes
    python benchmarks/attack.py --widths 8 --threads 1 --least 20   # fails below 20 times

*Ours* is all that a run does: pixels to the device, `megu.training.loop.predict` in large batches, the attack on arrays.
*The public way* is what the code of most unlearning papers does: every loader is made again with ``batch_size=1`` to collect
probabilities, scikit-learn fits the attack, and RMIA compares one sample at a time with the population. Both start from the same bytes in
a memory map; the public way normalises an image when it is asked for it, as such data sets do, and decodes nothing.

What takes the public way minutes is measured on a slice of the images, evenly spread, and multiplied up; the table says what was
multiplied by how much. Both grow with the number of images and nothing else. Each side's time is the best of ``--repeat``.
scikit-learn's fits are on all samples, but for the machine with a radial kernel, which such code uses: that takes minutes on 60,000, so
it is timed on 10,000 and not counted.

The two ways must agree, or this fails: logits, both classifiers' scores, every sample's RMIA score, AUC and TPR. What the networks
learned does not matter to the times, so they are trained for moments. Without a GPU the ratio of a large network is bounded by
arithmetic: batching saves the cost of a call, and cannot save the convolutions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn
from torch.utils.data import DataLoader

from megu.data import arrays
from megu.data.arrays import Dataset, Partition
from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.evaluation.attacks.entropy import logistic, members_called, svm
from megu.evaluation.attacks.roc import auc, tpr_at_fpr
from megu.evaluation.attacks.shadows import OFFLINE, half, log_ratio, rmia, true_log_probabilities
from megu.models import seeded
from megu.models.compact import CompactResNet
from megu.training.loop import TrainParams, fit, predict

T = TypeVar("T")
CPU = torch.device("cpu")
#: The class that is played as forgotten: Sneaker.
FORGOTTEN = 7
KERNEL_SAMPLES = 10_000


@dataclass(frozen=True)
class Row:
    """One attack both ways, in seconds. measured: what of ``public`` was measured; the rest is multiplied up."""

    network: str
    attack: str
    ours: float
    public: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.public / self.ours


def timed(work: Callable[[], T], repeat: int = 1) -> tuple[T, float]:
    """What ``work`` returns, and the seconds of its fastest run."""
    fastest = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        result = work()
        fastest = min(fastest, time.perf_counter() - started)
    return result, fastest


class Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A data set as torchvision has them: an image is made a normalised tensor when it is asked for."""

    def __init__(self, partition: Partition, at: NDArray[Any], dataset: Dataset) -> None:
        self.images, self.labels = partition.images[at], partition.labels[at]
        self.mean = torch.tensor(dataset.mean)[:, None, None]
        self.std = torch.tensor(dataset.std)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[place]).permute(2, 0, 1).contiguous().float().div(255)
        return image.sub_(self.mean).div_(self.std), int(self.labels[place])


def network(width: int, dataset: Dataset, seed: int, seen: NDArray[np.bool_]) -> nn.Module:
    """A compact network that has seen 5,000 of its images once."""
    model = seeded(lambda: CompactResNet(dataset.num_classes, dataset.channels, width), seed)
    images = ImageSet.from_partition(dataset.train, dataset.mean, dataset.std, CPU, np.flatnonzero(seen)[:5000])
    fit(model, images, TrainParams(epochs=1), seed)
    return model.eval()


def answers(model: nn.Module, dataset: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ours: logits of all training and test images, from the bytes on."""
    parts = (dataset.train, dataset.test)
    train, test = (
        predict(model, ImageSet.from_partition(part, dataset.mean, dataset.std, CPU)).logits.numpy() for part in parts
    )
    return train, test


def singly(model: nn.Module, images: Images) -> NDArray[Any]:
    """The public way: logits, an image at a time. Such code keeps the probabilities; the comparison is of logits."""
    found = []
    with torch.no_grad():
        for image, _ in DataLoader(images, batch_size=1, shuffle=False):
            found.append(model(image))
    return torch.cat(found).numpy()


def slices(dataset: Dataset, every: int) -> tuple[list[NDArray[Any]], list[Images]]:
    """Every ``every``-th training and test image: positions and data set."""
    parts = (dataset.train, dataset.test)
    places = [np.arange(0, len(part), every) for part in parts]
    return places, [Images(part, at, dataset) for part, at in zip(parts, places, strict=True)]


def agree(what: str, ours: Any, theirs: Any, within: float) -> None:
    """Both ways must give the same; says by how much they differ."""
    apart = float(np.max(np.abs(np.asarray(ours) - np.asarray(theirs))))
    print(f"  agree: {what}, at most {apart:.1e} apart (allowed {within:.0e})")
    if not apart <= within:
        sys.exit(f"attack: {what} differ by {apart}, allowed are {within}")


def population_attack(name: str, model: nn.Module, dataset: Dataset, every: int, repeat: int) -> Row:
    """MIA on entropy, by both classifiers."""
    members, forget = (np.flatnonzero(mask) for mask in (dataset.train.labels != FORGOTTEN, dataset.train.labels == FORGOTTEN))

    def ours() -> tuple[Any, Any, list[float]]:
        train, test = answers(model, dataset)
        known, others = entropies(softmax(train)), entropies(softmax(test))
        return known, others, [members_called(known[members], others, known[forget], kind) for kind in (logistic, svm)]

    (known, others, scores), seconds = timed(ours, repeat)
    places, images = slices(dataset, every)
    found, feature_seconds = timed(lambda: [singly(model, part) for part in images], repeat)
    agree("entropies", np.concatenate([known[places[0]], others[places[1]]]), entropies(softmax(np.concatenate(found))), 1e-3)

    x = np.concatenate([known[members], others])[:, None]
    y = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    kinds = (
        LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=1000),
        LinearSVC(class_weight="balanced", dual=False, tol=1e-8),
    )
    theirs, fit_seconds = timed(lambda: [100 * kind.fit(x, y).predict(known[forget, None]).mean() for kind in kinds])
    agree("logistic regression and machine, in points", scores, theirs, 0.1)
    some = np.random.default_rng(0).choice(len(x), min(KERNEL_SAMPLES, len(x)), replace=False)
    _, kernel_seconds = timed(lambda: SVC(C=3, gamma="auto", kernel="rbf", class_weight="balanced").fit(x[some], y[some]))
    print(
        f"  not counted: scikit-learn's machine with a radial kernel, {len(some):,} of {len(x):,} samples: {kernel_seconds:.1f} s"
    )
    return Row(name, "MIA, logistic + SVM", seconds, feature_seconds * every + fit_seconds, feature_seconds + fit_seconds)


def shadow_attack(
    name: str, models: list[nn.Module], seen: list[NDArray[np.bool_]], dataset: Dataset, every: int, repeat: int
) -> Row:
    """RMIA of every training image against every test image. models: the one that is attacked, then its shadows."""
    labels = dataset.train.labels, dataset.test.labels
    nothing_seen = [half(len(dataset.test), number, 0, "test") for number in range(len(seen))]

    def ours() -> tuple[list[list[Any]], Any, Any, list[float]]:
        said = [[true_log_probabilities(x, y) for x, y in zip(answers(m, dataset), labels, strict=True)] for m in models]
        ratio = [
            log_ratio(said[0][side], np.stack([entry[side] for entry in said[1:]]), np.stack(masks))
            for side, masks in enumerate((seen, nothing_seen))
        ]
        scores = [rmia(entry, ratio[1]) for entry in ratio]
        return said, ratio, scores, [auc(*scores), *(tpr_at_fpr(scores[0], scores[1], rate) for rate in (0.01, 0.001))]

    (said, ratio, scores, metrics), seconds = timed(ours, repeat)
    places, images = slices(dataset, every)
    found, feature_seconds = timed(lambda: [[singly(model, part) for part in images] for model in models], repeat)
    slice_labels = [own[at] for own, at in zip(labels, places, strict=True)]
    agree(
        "log-probabilities",
        np.stack([entry[0][places[0]] for entry in said]),
        np.stack([true_log_probabilities(entry[0], slice_labels[0]) for entry in found]),
        1e-3,
    )
    probabilities = [np.exp(entry[0][places[0]]) for entry in said]

    def one_by_one() -> list[float]:
        """The definition, a sample at a time against the whole population."""
        population = np.exp(ratio[1])
        result = []
        for at, place in enumerate(places[0]):
            new = [p[at] for p, mask in zip(probabilities[1:], seen, strict=True) if not mask[place]]
            own = probabilities[0][at] / (((1 + OFFLINE) * np.mean(new) + 1 - OFFLINE) / 2)
            result.append(float((own / population >= 1).mean()))
        return result

    theirs, loop_seconds = timed(one_by_one)
    agree("RMIA scores", scores[0][places[0]], theirs, 2e-4)
    y = np.concatenate([np.ones(len(scores[0])), np.zeros(len(scores[1]))])

    def curve() -> list[float]:
        every_score = np.concatenate(scores)
        false, true, _ = roc_curve(y, every_score, drop_intermediate=False)
        return [roc_auc_score(y, every_score), *(true[false <= rate + 1e-9].max() for rate in (0.01, 0.001))]

    curves, curve_seconds = timed(curve)
    agree("AUC, TPR at 1% and at 0.1%", metrics, curves, 1e-9)
    measured = feature_seconds + loop_seconds
    return Row(name, f"RMIA, {len(seen)} shadows", seconds, measured * every + curve_seconds, measured + curve_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"))
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[8, 32], help="of the compact network; 32 is the default run's"
    )
    parser.add_argument("--shadows", type=int, default=2)
    parser.add_argument("--every", type=int, default=20, help="the public way sees every n-th image")
    parser.add_argument("--repeat", type=int, default=3, help="times that each side is measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--least", type=float, default=0.0, help="fail where a ratio of the first width is below")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset, rows = arrays.load(arguments.data), []
    for width in arguments.widths:
        name = f"width {width}"
        print(f"{name}: compact network, {arguments.threads} threads", flush=True)
        seen = [half(len(dataset.train), number, 0) for number in range(arguments.shadows)]
        everything = np.ones(len(dataset.train), dtype=bool)
        models = [network(width, dataset, number, mask) for number, mask in enumerate((everything, *seen))]
        predict(models[0], ImageSet.from_partition(dataset.test, dataset.mean, dataset.std, CPU))  # warm
        rows.append(population_attack(name, models[0], dataset, arguments.every, arguments.repeat))
        rows.append(shadow_attack(name, models, seen, dataset, arguments.every, arguments.repeat))
    count = f"{len(dataset.train):,} + {len(dataset.test):,} images"
    print(f"\n{count}; the public way's features and loop: every {arguments.every}th image measured, times {arguments.every}\n")
    print("| network | attack | ours | public way | of it measured | times faster |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.network} | {row.attack} | {row.ours:.2f} s | {row.public:.1f} s | {row.measured:.1f} s | {row.ratio:.1f} |"
        )
    slow = [row for row in rows if row.network == rows[0].network and row.ratio < arguments.least]
    if slow:
        sys.exit(f"attack: {slow[0].attack} is {slow[0].ratio:.1f} times faster, asked for is {arguments.least:.0f}")


if __name__ == "__main__":
    main()
