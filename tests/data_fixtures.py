"""Real data for tests: Fashion-MNIST through the real providers, fetched once for all workers and sessions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from megu.data import arrays, providers
from megu.data.arrays import Dataset

REPOSITORY = Path(__file__).resolve().parents[1]


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
