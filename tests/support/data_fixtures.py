"""Data for tests: Fashion-MNIST through the real providers, fetched once for all workers and sessions, and a toy in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megu.data import arrays
from megu.data.arrays import Dataset, Partition, image_ids
from megu.data.sources import providers

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("Sandal", "Shirt", "Sneaker")


@pytest.fixture(scope="session")
def fashion_mnist_project(pytestconfig: pytest.Config) -> Path:
    """A project folder whose ``data/fashion-mnist`` is there: the repository when it has the data, else a kept cache folder."""
    if (REPOSITORY / "data" / "fashion-mnist").is_dir():
        return REPOSITORY
    cache = pytestconfig.cache
    assert cache is not None, "the cache plugin is needed: it keeps the data set between sessions"
    root = Path(cache.mkdir("megu-data"))
    shutil.copyfile(REPOSITORY / "data.dvc", root / "data.dvc")
    # A lock inside makes the workers wait for the first one.
    providers.fetch(root, "fashion-mnist")
    return root


@pytest.fixture(scope="session")
def fashion_mnist(fashion_mnist_project: Path) -> Dataset:
    """The whole of Fashion-MNIST: 60,000 train and 10,000 test images, by memory map."""
    return arrays.load(fashion_mnist_project / "data" / "fashion-mnist")


def toy(seed: int = 0, n: int = 30, copies: int = 0, coarse: Any = ("shoes", "tops", "shoes")) -> Dataset:
    """In memory; the last ``copies`` train images repeat the first."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 3, 1), dtype=np.uint8)
    if copies:
        images[-copies:] = images[:copies]
    test = rng.integers(0, 256, (9, 3, 3, 1), dtype=np.uint8)
    return Dataset(
        name="toy",
        path=Path("nowhere"),
        classes=CLASSES,
        coarse=coarse,
        mean=(0.5,),
        std=(0.5,),
        source="",
        licence="",
        train=Partition(images, np.arange(n) % 3, image_ids(images)),
        test=Partition(test, np.arange(9) % 3, image_ids(test)),
    )
