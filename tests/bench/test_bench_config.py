"""What a benchmark file may say, and what it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from megu.bench.config import Bench, Runner, load
from megu.bench.expansion import expand, variants
from megu.config import tree as configuration
from megu.core.errors import MeguError
from megu.unlearning.methods import METHODS

FILES = sorted((Path(__file__).resolve().parents[2] / "bench").glob("*.yaml"))


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(**values: Any) -> Path:
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_that_is_shipped_is_a_benchmark(path: Path) -> None:
    bench = load(path)
    cells = expand(bench)
    assert bench.name == path.stem
    assert bench.title
    points = sum(len(values) for values in bench.sweep.values()) or 1
    trained = [variant for variant in variants(bench) if variant.method != "retrain"]
    assert len(cells) == len(trained) * len(bench.targets) * len(bench.seeds) * points
    assert len({cell.label for cell in cells}) == len(cells)


def test_the_memorised_benchmark_is_all_methods_on_five_classes_and_three_seeds() -> None:
    bench = load(next(path for path in FILES if path.stem == "fashion-memorised"))
    plain = [variant.label for variant in variants(bench) if variant.label == variant.method]
    assert plain == [name for name in METHODS if name != "megu_published"]
    published = next(variant for variant in variants(bench) if variant.method == "megu_published")
    assert published.settings["perturbing.label"] == "rank", "the paper's method is the paper's with the paper's label only"
    assert {cell.target for cell in expand(bench)} == {"Sneaker", "Shirt", "Bag", "Trouser", "Coat"}
    assert bench.seeds == (0, 1, 2)
    assert {cell.config.data.per_class for cell in expand(bench)} == {1000}
    for cell in expand(bench):
        if cell.variant.label in METHODS:  # one setting for each method: its own
            assert cell.config.unlearn.params == METHODS[cell.variant.method].params()


def test_a_cell_has_the_base_its_target_seed_and_variant(written: Any) -> None:
    path = written(
        base={"train": {"epochs": 7}, "forget": {"scenario": "random"}, "unlearn": {"method": "scrub", "msteps": 1}},
        methods=["scrub", "ssd", {"name": "quick", "method": "megu", "set": {"unlearn.steps": 5, "noise.steps": 3}}],
        targets=[{"count": 5}, {"scenario": "class", "classes": ["Bag", "Coat"]}],
        seeds=[4],
    )
    cells = {cell.label: cell.config for cell in expand(load(path))}
    assert list(cells) == [
        "5 random, scrub, seed 4", "5 random, ssd, seed 4", "5 random, quick, seed 4",
        "Bag + Coat, scrub, seed 4", "Bag + Coat, ssd, seed 4", "Bag + Coat, quick, seed 4",
    ]  # fmt: skip
    scrub, ssd, quick = list(cells.values())[:3]
    assert {config.train.epochs for config in cells.values()} == {7}
    assert {config.seed for config in cells.values()} == {4}
    assert (scrub.unlearn.method, scrub.unlearn.params.msteps) == ("scrub", 1)
    assert ssd.unlearn.params == METHODS["ssd"].params()
    assert (quick.unlearn.method, quick.unlearn.params.steps, quick.noise.steps) == ("megu", 5, 3)
    assert (scrub.forget.scenario, scrub.forget.count) == ("random", 5)


def test_the_plain_retrain_is_the_reference_and_trains_nothing_twice(written: Any) -> None:
    cells = expand(load(written(methods=["retrain", "ssd"], seeds=[0])))
    assert [cell.variant.method for cell in cells] == ["ssd"]
    assert [cell.variant.method for cell in expand(load(written(methods=["retrain"], seeds=[0])))] == ["retrain"]


def test_a_given_retrain_is_not_the_plain_one_which_is_trained_then(written: Any) -> None:
    base = {"reference": {"weights": "a"}}
    cells = expand(load(written(methods=["retrain", "ssd"], seeds=[0], base=base)))
    assert [cell.variant.method for cell in cells] == ["retrain", "ssd"]


def test_a_sweep_changes_one_key_at_a_time(written: Any) -> None:
    path = written(methods=["megu"], seeds=[0], sweep={"perturbing.tau": [0.1, 0.5], "unlearn.alpha": [0.2]})
    cells = expand(load(path))
    assert [cell.swept for cell in cells] == [("perturbing.tau", 0.1), ("perturbing.tau", 0.5), ("unlearn.alpha", 0.2)]
    found = [(cell.config.perturbing.tau, cell.config.unlearn.params.alpha) for cell in cells]
    assert found == [(0.1, 0.7), (0.5, 0.7), (0.3, 0.2)]


def test_settings_change_the_benchmark_or_every_run(written: Any) -> None:
    bench = load(written(base={"train": {"epochs": 2}}), ["seeds=[5]", "runner.kind=threads", "train.lr=0.5", "device=cpu"])
    assert (bench.seeds, bench.runner.kind) == ((5,), "threads")
    assert bench.base == {"train": {"epochs": 2, "lr": 0.5}, "device": "cpu"}


def test_one_thread_each_beside_others_and_pytorchs_own_choice_alone() -> None:
    assert (Runner().threads, Runner().slots) == (None, 1)
    assert (Runner(kind="threads", workers=3).threads, Runner(kind="threads", workers=3).slots) == (1, 3)
    assert Runner(kind="dask", threads_per_worker=2).threads == 2
    assert Runner(threads_per_worker=1).threads == 1


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"metods": ["ssd"]}, "unknown key metods: did you mean methods?"),
    "unknown key below": ({"runner": {"kind": "dask", "adress": "x"}}, "unknown key runner.adress"),
    "unknown method": ({"methods": ["sdd"]}, "there is no method 'sdd'"),
    "unknown key of a variant": ({"methods": [{"name": "ssd", "sets": {}}]}, "has no key 'sets'"),
    "two of one name": ({"methods": ["ssd", "ssd"]}, "two are called 'ssd'"),
    "two targets of one name": ({"targets": [{"classes": ["Bag"]}, {"classes": ["Bag"]}]}, "two targets have one name"),
    "a variant that changes the training": ({"methods": [{"name": "ssd", "set": {"train.epochs": 3}}]}, "train.epochs"),
    "a sweep over the seed": ({"sweep": {"seed": [1]}}, "sweep = 'seed'"),
    "an empty sweep": ({"sweep": {"noise.lam": []}}, "sweep.noise.lam = ()"),
    "a value that a method refuses": ({"methods": ["megu"], "sweep": {"unlearn.alpha": [2]}}, "unlearn.alpha = 2"),
    "a key that the method does not have": ({"methods": ["ssd"], "sweep": {"unlearn.tau": [2]}}, "unknown key unlearn.tau"),
    "a seed in the base": ({"base": {"seed": 3}}, "a benchmark has seeds"),
    "no retrain": ({"base": {"reference": {"enabled": False}}}, "a benchmark compares with the retrain"),
    "one given retrain, two targets": (
        {"base": {"reference": {"weights": "a"}}, "targets": [{"classes": ["Bag"]}, {"classes": ["Coat"]}], "seeds": [0]},
        "a given retrain (reference) is of one forget set and one seed, and the benchmark has 2 targets and 1 seeds",
    ),
    "one given retrain, three seeds": ({"base": {"reference": {"model": "models:/a/1"}}}, "has 1 targets and 3 seeds"),
    "the same seed twice": ({"seeds": [1, 1]}, "different seeds"),
    "no seed": ({"seeds": []}, "at least one"),
    "an address without Dask": ({"runner": {"address": "tcp://127.0.0.1:1"}}, "left out but for kind: dask"),
    "an unknown runner": ({"runner": {"kind": "ray"}}, "runner.kind"),
    "no workers": ({"runner": {"kind": "threads", "workers": 0}}, "workers = 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_line(case: str, written: Any) -> None:
    values, said = WRONG[case]
    with pytest.raises(MeguError) as error:
        expand(load(written(**values)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="nowhere"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("base: 3")
    with pytest.raises(MeguError, match="base holds no sections"):
        load(tmp_path / "bad.yaml")


def test_the_defaults_are_all_methods_on_the_default_request() -> None:
    assert [cell.config.forget for cell in expand(Bench(seeds=(0,)))] == [configuration.Config().forget] * (len(METHODS) - 1)
