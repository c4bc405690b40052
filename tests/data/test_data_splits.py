from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import CLASSES
from data_fixtures import toy as dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megu.config.tree import parse
from megu.core.errors import MeguError
from megu.data import arrays, splits
from megu.data.arrays import Dataset, Partition, coarse_view, save
from megu.data.scope import RequestScope
from megu.data.splits import ForgetParams, ForgetSplit, load_split, make_split, read_params, save_split
from megu.requests.fulfilled import DatasetContents
from megu.requests.request import BASES, REQUESTERS, Request


@pytest.mark.parametrize("had", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_name_is_found_in_either_unicode_spelling(tmp_path: Path, had: str, asked: str) -> None:
    """macOS and Linux write the letters of one name differently; sets that were added before names were brought to one form have either."""
    there, here = (unicodedata.normalize(kind, "Café") for kind in (had, asked))
    plain = dataset()
    names = np.array([f"{there}/{n}{'é'}".encode() for n in range(len(plain.train))])
    data = replace(plain, classes=(there, *plain.classes[1:]), train=replace(plain.train, names=names))
    assert make_split(data, ForgetParams(classes=(here,)), 0).classes == (0,)
    written = arrays.save(tmp_path, name="some", classes=data.classes, train=plain_of(data.train), test=plain_of(data.test))
    assert DatasetContents(written).fault(Request(classes=(here,), **_REQUEST).target) == ("", 10)
    assert written.classes == RequestScope.of({"scenario": "class", "classes": [here]}).classes + plain.classes[1:]
    file = unicodedata.normalize(asked, f"train/{here}/4é.png")
    assert make_split(data, ForgetParams(scenario="ids", files=(file,)), 0).forget.tolist() == [4]


def plain_of(part: Partition) -> tuple[Any, Any]:
    return part.images, part.labels


_REQUEST = {"basis": BASES[0], "requester": REQUESTERS[0], "due": "2027-01-01"}


def test_two_spellings_of_one_class_in_a_set_of_before_are_not_taken_for_one() -> None:
    two = tuple(unicodedata.normalize(kind, "Café") for kind in ("NFC", "NFD"))
    with pytest.raises(MeguError, match="in two Unicode spellings"):
        make_split(replace(dataset(), classes=(*two, "x")), ForgetParams(classes=two[:1]), 0)


def permuted(data: Dataset, order: np.ndarray) -> Dataset:
    fine = None if data.train.fine is None else data.train.fine[order]
    train = Partition(data.train.images[order], data.train.labels[order], data.train.ids[order], fine)
    return replace(data, train=train)


def same(one: ForgetSplit, other: ForgetSplit) -> bool:
    arrays = ("forget", "retain", "test_forget", "test_retain")
    return (one.scenario, one.classes) == (other.scenario, other.classes) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@st.composite
def requests(draw: st.DrawFn) -> tuple[Dataset, ForgetParams, int]:
    data = dataset(draw(st.integers(0, 99)), draw(st.integers(6, 40)), draw(st.integers(0, 2)))
    scenario = draw(st.sampled_from(["class", "subclass", "random", "ids"]))
    names = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=2, unique=True))
    picked = draw(st.lists(st.integers(0, len(data.train) - 1), min_size=1, max_size=3))
    params = ForgetParams(
        scenario=scenario,
        classes=tuple(names),
        count=draw(st.integers(1, 2)),
        ids=tuple(data.train.ids[i].decode() for i in picked),
    )
    if scenario == "subclass":
        assume(set(names) != {"Sandal", "Sneaker"} and "Shirt" not in names)
        data = coarse_view(data)
    if scenario in ("ids", "random"):
        left = data.train.labels[~np.isin(data.train.ids, np.array(params.ids, dtype="S32"))]
        assume(len(data.train) >= 12 and len(np.unique(left)) == 3)
    return data, params, draw(st.integers(0, 2**31))


@given(request=requests())
@settings(max_examples=60)
def test_a_split_partitions_train_and_test_exactly(request: tuple[Dataset, ForgetParams, int]) -> None:
    data, params, seed = request
    split = make_split(data, params, seed)
    for forget, retain, part in (
        (split.forget, split.retain, data.train),
        (split.test_forget, split.test_retain, data.test),
    ):
        assert forget.dtype == retain.dtype == np.int64
        assert sorted([*forget.tolist(), *retain.tolist()]) == list(range(len(part)))
        assert (np.diff(forget) > 0).all()
        assert (np.diff(retain) > 0).all()
    assert 0 < len(split.forget) < len(data.train)
    # No image is on both sides, not even as a copy, where the request is by image.
    if params.scenario in ("random", "ids"):
        assert not np.isin(data.train.ids[split.retain], data.train.ids[split.forget]).any()
        assert len(split.test_forget) == 0


@given(request=requests(), shuffle=st.integers(0, 2**31))
@settings(max_examples=60)
def test_a_request_means_the_same_images_in_any_order(request: tuple[Dataset, ForgetParams, int], shuffle: int) -> None:
    data, params, seed = request
    other = permuted(data, np.random.default_rng(shuffle).permutation(len(data.train)))
    before, after = make_split(data, params, seed), make_split(other, params, seed)
    assert sorted(data.train.ids[before.forget].tolist()) == sorted(other.train.ids[after.forget].tolist())


@given(request=requests())
@settings(max_examples=20)
def test_save_and_load(tmp_path_factory: pytest.TempPathFactory, request: tuple[Dataset, ForgetParams, int]) -> None:
    folder = tmp_path_factory.mktemp("split") / "splits"
    split = make_split(*request)
    save_split(folder, split)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert same(load_split(folder), split)
    save_split(folder, split)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_class() -> None:
    data = dataset()
    split = make_split(data, ForgetParams(classes=("Sneaker",)), seed=0)
    assert split.classes == (2,)
    assert (data.train.labels[split.forget] == 2).all()
    assert not (data.train.labels[split.retain] == 2).any()
    assert split.test_forget.tolist() == [2, 5, 8]


def test_subclass_masks_no_class() -> None:
    data = coarse_view(dataset())
    assert data.classes == ("shoes", "tops")
    split = make_split(data, ForgetParams(scenario="subclass", classes=("Sandal",)), seed=0)
    assert split.classes == ()
    assert split.forget.tolist() == list(range(0, 30, 3))
    assert (data.train.labels[split.forget] == 0).all()
    assert 0 in data.train.labels[split.retain], "the other shoes stay"
    assert split.test_forget.tolist() == [0, 3, 6]


def test_only_random_depends_on_the_seed() -> None:
    data = dataset(n=60)
    for params in (ForgetParams(), ForgetParams(scenario="ids", ids=(data.train.ids[3].decode(),))):
        assert same(make_split(data, params, 0), make_split(data, params, 1))
    draws = [make_split(data, ForgetParams(scenario="random", count=10), seed) for seed in (0, 0, 1)]
    assert same(draws[0], draws[1])
    assert not same(draws[0], draws[2])
    assert len(draws[0].forget) == len(draws[2].forget) == 10


def test_every_copy_of_an_id_goes() -> None:
    data = dataset(n=30, copies=1)
    split = make_split(data, ForgetParams(scenario="ids", ids=(data.train.ids[0].decode(),)), seed=0)
    assert split.forget.tolist() == [0, 29]


@pytest.mark.parametrize(
    ("said", "classes"),
    [({}, ()), ({"classes": ("Sneaker",)}, ("Sneaker",)), ({"classes": ()}, ()), ({"subclasses": ("boot",)}, ())],
)
def test_a_mixed_request_forgets_no_class_that_it_does_not_name(said: dict[str, Any], classes: tuple[str, ...]) -> None:
    asked = {"scenario": "mixed", "ids": ("0" * 32,), **said}
    assert ForgetParams(**asked).classes == parse({"forget": asked}).forget.classes == classes
    with pytest.raises(ValueError, match="at least one class"):
        ForgetParams(scenario="mixed")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (ForgetParams(classes=("Sneeker",)), "no class 'Sneeker': did you mean 'Sneaker'"),
        (ForgetParams(classes=("sneaker",)), "no class 'sneaker': did you mean 'Sneaker'"),
        (ForgetParams(classes=("xyz",)), "it has Sandal, Shirt, Sneaker"),
        (ForgetParams(classes=CLASSES), "forgets all 30"),
        (ForgetParams(scenario="ids", ids=("0" * 32,)), "1 of 1 are not training images"),
        (ForgetParams(scenario="ids", ids=("ä",)), "not training images"),
        (ForgetParams(scenario="ids", ids=(dataset().test.ids[0].decode(),)), "in its test split"),
        (ForgetParams(scenario="random", count=31), "count = 31, but 'toy' has 30"),
        (ForgetParams(scenario="random", count=30), "forgets all 30"),
    ],
)
def test_wrong_requests(params: ForgetParams, message: str) -> None:
    with pytest.raises(MeguError) as raised:
        make_split(dataset(), params, seed=0)
    assert message in str(raised.value)


def named(data: Dataset) -> Dataset:
    def with_names(part: Partition) -> Partition:
        return replace(part, names=np.array([f"{CLASSES[k]}/é{i}".encode() for i, k in enumerate(part.labels)]))

    return replace(data, train=with_names(data.train), test=with_names(replace(data.test, images=data.test.images)))


@pytest.mark.parametrize("file", ["Sneaker/é11", "Sneaker/é11.png", "train/Sneaker/é11.webp", "photos/train/Sneaker/é11.JPG"])
def test_an_image_is_named_by_its_file(file: str) -> None:
    split = make_split(named(dataset()), ForgetParams(scenario="ids", files=(file, "Shirt/é1")), seed=0)
    assert split.forget.tolist() == [1, 11]


def test_files_and_ids_add_up_and_every_copy_goes() -> None:
    data = named(dataset(copies=1))
    params = ForgetParams(scenario="ids", files=("Sandal/é0",), ids=(data.train.ids[4].decode(),))
    assert make_split(data, params, seed=0).forget.tolist() == [0, 4, 29]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("Shirt/é1", "Shirt/é99"), "1 of 2 are not training images of 'toy'; 'Shirt/é99' is not in it"),
        (("test/Shirt/é1.png",), "'test/Shirt/é1.png' is in its test split"),
        (("Shirt",), "'Shirt' is not in it"),
    ],
)
def test_a_file_that_is_not_there(files: tuple[str, ...], message: str) -> None:
    with pytest.raises(MeguError) as raised:
        make_split(named(dataset()), ForgetParams(scenario="ids", files=files), seed=0)
    assert message in raised.value.what
    assert raised.value.fix


def test_a_set_without_names_says_so() -> None:
    with pytest.raises(MeguError, match="did not come as files"):
        make_split(dataset(), ForgetParams(scenario="ids", files=("Shirt/1",)), seed=0)


def test_a_request_that_empties_a_class_must_ask_for_the_class() -> None:
    data = dataset()
    ids = tuple(identifier.decode() for identifier in data.train.ids[data.train.labels == 1])
    with pytest.raises(MeguError, match="leaves no training image of 'Shirt': ask for the whole class"):
        make_split(data, ForgetParams(scenario="ids", ids=ids), seed=0)
    assert len(make_split(data, ForgetParams(scenario="ids", ids=ids[1:]), seed=0).forget) == 9
    with pytest.raises(MeguError, match="leaves no training image of 'shoes'"):
        make_split(coarse_view(data), ForgetParams(scenario="subclass", classes=("Sandal", "Sneaker")), seed=0)


def test_a_fine_class_that_is_not_there_is_said() -> None:
    with pytest.raises(MeguError, match="no class 'Sneeker': did you mean 'Sneaker'"):
        make_split(coarse_view(dataset()), ForgetParams(scenario="subclass", classes=("Sneeker",)), seed=0)


def test_subclass_needs_labels_by_superclass() -> None:
    with pytest.raises(MeguError, match="is labelled by its finer classes: fetch cifar20"):
        make_split(dataset(), ForgetParams(scenario="subclass"), seed=0)


def test_subclass_needs_superclasses() -> None:
    with pytest.raises(MeguError, match="no superclasses"):
        make_split(dataset(coarse=None), ForgetParams(scenario="subclass"), seed=0)


@pytest.mark.parametrize(
    "values",
    [{"scenario": "klass"}, {"count": 0}, {"classes": ()}, {"scenario": "ids"}, {"scenario": "subclass", "classes": ()}],
)
def test_values_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        ForgetParams(**values)


def test_a_damaged_split(tmp_path: Path) -> None:
    save_split(tmp_path / "splits", make_split(dataset(), ForgetParams(), 0))
    np.save(tmp_path / "splits" / "forget.npy", np.arange(3))
    with pytest.raises(MeguError, match="damaged"):
        load_split(tmp_path / "splits")
    with pytest.raises(MeguError, match="missing"):
        load_split(tmp_path / "absent")


def project(root: Path, params: str) -> Path:
    data = dataset()
    parts = {split: (part.images, part.labels) for split, part in (("train", data.train), ("test", data.test))}
    save(root / "data" / "toy", name="toy", classes=CLASSES, train=parts["train"], test=parts["test"])
    (root / "params.yaml").write_text(params)
    return root


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("data: {name: toy}\nforget: {clases: [Shirt]}", "no key 'clases'"),
        ("data: {name: toy}\nforget: {count: 0}", "out of range"),
        ("data: {name: toy}\nforget: [1]", "cannot be used"),
        ("data: {name: [", "cannot be used"),
        ("", ""),
    ],
)
def test_params_file(tmp_path: Path, params: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(params)
    if not message:
        assert read_params(tmp_path) == ("fashion-mnist", ForgetParams(), 0)
        return
    with pytest.raises(MeguError, match=message):
        read_params(tmp_path)


@pytest.mark.parametrize(("name", "code"), [("Shirt", 0), ("Skirt", 2)])
def test_as_a_command(tmp_path: Path, name: str, code: int) -> None:
    root = project(tmp_path, f"seed: 3\ndata: {{name: toy}}\nforget: {{scenario: class, classes: [{name}]}}\n")
    command = [sys.executable, "-m", "megu.data.splits"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    if code:
        assert "did you mean 'Shirt' or" in run.stderr
        assert "Traceback" not in run.stderr
        assert not (root / "splits").exists()
    else:
        assert load_split(root / "splits").classes == (1,)


def test_the_limit_of_params_yaml_holds_for_the_split_that_dvc_makes(tmp_path: Path) -> None:
    root = project(tmp_path, "seed: 3\ndata: {name: toy, per_class: 2}\nforget: {scenario: class, classes: [Shirt]}\n")
    splits.main(root)
    made = load_split(root / "splits")
    limited = arrays.limited(arrays.load(root / "data" / "toy"), 2)
    assert (len(made.forget), len(made.retain)) == (2, 4)
    assert limited.train.labels[made.forget].tolist() == [CLASSES.index("Shirt")] * 2


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5"])
def test_a_limit_that_is_none(tmp_path: Path, limit: str) -> None:
    (tmp_path / "params.yaml").write_text(f"data: {{name: toy, per_class: {limit}}}\n")
    with pytest.raises(MeguError, match=r"data\.per_class"):
        splits.read_limit(tmp_path)
