"""Every recipe file is a configuration, and the paper's numbers are in it (METHOD: original training recipes behind the tables)."""

from __future__ import annotations

from pathlib import Path

import pytest

from megu.config import tree as config
from megu.data.sources import downloads
from megu.data.sources.cifar import KINDS, SUPERCLASSES
from megu.training.loop import multistep

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))

#: data set -> epochs, drops
METHOD = {"cifar100": (200, (60, 120, 160)), "cifar20": (40, (15, 30, 35)), "cifar10": (20, (8, 12, 16))}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_methods(path: Path) -> None:
    loaded = config.load(path)
    train = loaded.train
    assert (train.epochs, train.milestones) == METHOD[loaded.data.name]
    assert (train.arch, train.optimiser, train.batch_size) == ("resnet18", "sgd", 128)
    assert [multistep(epoch, train.lr, train.milestones, train.drop) for epoch in (0, train.milestones[0])] == [0.1, 0.1 * 0.2]
    assert loaded.data.name in downloads.names()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_forgets_what_its_data_set_has(path: Path) -> None:
    loaded = config.load(path)
    fine = KINDS["cifar100"].classes
    known = {("cifar100", "class"): fine, ("cifar20", "class"): tuple(SUPERCLASSES), ("cifar20", "subclass"): fine}
    if loaded.forget.scenario != "random":
        assert set(loaded.forget.classes) <= set(known[loaded.data.name, loaded.forget.scenario])


def test_there_is_a_recipe_for_each_data_set_of_the_tables() -> None:
    assert {config.load(path).data.name for path in RECIPES} == set(METHOD)
