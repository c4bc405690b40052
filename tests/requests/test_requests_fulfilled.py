"""What a batch forgets: new requests and everything before; looked up in a small data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import toy
from hypothesis import given
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.data.arrays import Dataset, coarse_view, limited, save
from megu.data.splits import ForgetParams, make_split
from megu.lineage.commitments import commit
from megu.requests.fulfilled import DatasetContents, forget

KEY = b"k" * 32


def dataset() -> Dataset:
    """The last image is a copy of the first; it is of class 2, the first of class 0."""
    return toy(copies=1)


def target(**names: Any) -> dict[str, list[str]]:
    return {"classes": [], "subclasses": [], "ids": [], "files": [], **names}


def ids(data: Dataset, *positions: int) -> list[str]:
    return [data.train.ids[at].decode() for at in positions]


def test_a_request_for_what_is_there_has_its_number_of_images() -> None:
    data = dataset()
    known = DatasetContents(data)
    assert known.fault(target(classes=["Shirt"])) == ("", 10)
    assert known.fault(target(ids=ids(data, 1, 4))) == ("", 2)
    assert known.fault(target(ids=ids(data, 0))) == ("", 2)  # every copy of it
    assert DatasetContents(coarse_view(data)).fault(target(subclasses=["Sandal", "Sneaker"])) == ("", 20)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (target(classes=["Anna", "Shirt"]), "1 of 2 classes are not in the data set"),
        (target(classes=["Sandal", "Shirt", "Sneaker"]), "no training image at all"),
        (target(subclasses=["Sandal"]), "no finer classes"),
        (target(ids=["f" * 32]), "1 of 1 ids are not training images of the data set$"),
        (target(files=["anna/1"]), "it did not come as files"),
        (target(ids=ids(dataset(), *range(1, 30, 3))), "must ask for the class"),
    ],
)
def test_a_request_that_cannot_be_is_told_why_without_a_name(wanted: dict[str, list[str]], why: str) -> None:
    import re

    said, count = DatasetContents(dataset()).fault(wanted)
    assert re.search(why, said)
    assert count == 0
    for name in [*wanted["classes"], *wanted["ids"], *wanted["files"]]:
        assert name not in said or name == "Shirt"


def test_a_test_image_is_said_to_be_one() -> None:
    data = dataset()
    assert "1 of them are test images" in DatasetContents(data).fault(target(ids=[data.test.ids[0].decode()]))[0]


def test_of_a_person_what_is_in_use_is_forgotten_and_the_rest_is_no_obstacle(tmp_path: Path) -> None:
    whole = toy()
    whole = save(
        tmp_path / "toy",
        name="toy",
        classes=whole.classes,
        train=(whole.train.images, whole.train.labels),
        test=(whole.test.images, whole.test.labels),
    )
    seen = limited(whole, 2)
    known = DatasetContents(seen)
    used, unused = seen.train.ids[0].decode(), next(one.decode() for one in whole.train.ids if one not in seen.train.ids)
    tested = whole.test.ids[0].decode()
    assert known.fault(target(samples=[used, unused, tested])) == ("", 1)
    assert known.fault(target(samples=[unused, tested])) == ("", 0)
    assert known.fault(target(samples=["f" * 32])) == ("none of the 1 samples is in the data set", 0)
    assert (
        "must ask for the class"
        in known.fault(target(samples=[one.decode() for one in seen.train.ids[seen.train.labels == 0]]))[0]
    )
    both = known.combined([target(samples=[used, unused])], [target(samples=[seen.train.ids[1].decode(), tested])])
    assert both == forget([], [], [used, seen.train.ids[1].decode()])
    assert DatasetContents(whole).combined([], [target(samples=[used, unused, tested])]) == forget([], [], [used, unused])


@pytest.mark.parametrize(
    ("new", "before", "scenario"),
    [
        ([target(classes=["Shirt"])], [target(classes=["Sandal"])], "class"),
        ([target(ids=ids(dataset(), 1))], [target(ids=ids(dataset(), 2))], "ids"),
        ([target(ids=ids(dataset(), 1))], [target(classes=["Sandal"])], "mixed"),
        ([target(classes=["Sandal"])], [target(ids=ids(dataset(), 3))], "class"),  # the image is in the class
    ],
)
def test_what_one_kind_says_stays_of_that_kind(new: list[Any], before: list[Any], scenario: str) -> None:
    assert DatasetContents(dataset()).combined(new, before).scenario == scenario


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["Sandal", "Shirt", "Sneaker"]).map(lambda name: target(classes=[name])),
            st.lists(st.integers(1, 28), min_size=1, max_size=4).map(lambda at: target(ids=ids(dataset(), *at))),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_forget_set_only_grows_and_nothing_forgotten_is_retained(targets: list[dict[str, list[str]]]) -> None:
    data = dataset()
    known, before = DatasetContents(data), set[int]()
    for number in range(1, len(targets) + 1):
        try:
            split = make_split(data, known.combined(targets[number - 1 : number], targets[: number - 1]), 0)
        except MeguError:  # all of a class by its ids, or everything
            return
        forgotten = set(split.forget.tolist())
        assert before <= forgotten
        assert not before & set(split.retain.tolist())
        before = forgotten


def test_what_was_deleted_is_still_kept_out_by_its_commitments() -> None:
    data = dataset()
    known, kept = DatasetContents(data), {commit(KEY, identifier.encode()) for identifier in ids(data, 0, 4, 5)}
    assert known.committed(KEY, kept) == set(ids(data, 0, 4, 5))
    assert known.committed(b"j" * 32, kept) == set()
    split = make_split(data, known.combined([target(ids=ids(data, 7))], [], known.committed(KEY, kept)), 0)
    assert split.forget.tolist() == [0, 4, 5, 7, 29]


def test_a_class_of_which_all_goes_is_named() -> None:
    """What was forgotten as a class comes back as commitments to its images, and a class may not be emptied unnamed."""
    data = dataset()
    every = [ids(data, *range(number, 30, 3)) for number in range(3)]
    assert DatasetContents(data).combined([target(ids=ids(data, 2))], [], every[1]) == forget(["Shirt"], [], ids(data, 2))
    # Two requests that have half of it each. The first image has a copy in class 2, which goes too, and so stays listed.
    halves = [target(ids=every[0][:5]), target(ids=every[0][5:])]
    assert DatasetContents(data).combined(halves, []) == forget(["Sandal"], [], every[0][:1])
    coarse = coarse_view(data)
    both = DatasetContents(coarse).combined([target(ids=every[0])], [target(ids=every[1][:2])])
    assert both == forget([], ["Sandal"], [every[0][0], *every[1][:2]])
    assert DatasetContents(coarse).combined([target(ids=every[0])], [target(subclasses=["Sneaker"])]) == forget(
        ["shoes"], [], []
    )


def test_the_samples_of_a_request_are_those_that_are_still_there() -> None:
    data = dataset()
    known = DatasetContents(data)
    assert known.samples(target(classes=["Shirt", "Car"])) == set(ids(data, *range(1, 30, 3)))
    assert known.samples(target(ids=[*ids(data, 2), "f" * 32])) == set(ids(data, 2))


def test_an_earlier_request_whose_images_are_gone_from_the_data_set_is_no_obstacle() -> None:
    data = dataset()
    known = DatasetContents(data)
    split = make_split(data, known.combined([target(classes=["Shirt"])], [target(ids=["f" * 32]), target(classes=["Car"])]), 0)
    assert split.classes == (1,)
    with pytest.raises(MeguError, match="not training images"):
        make_split(data, known.combined([target(ids=["f" * 32])], []), 0)


def test_a_mixed_split_has_whole_classes_finer_ones_and_single_images() -> None:
    data = coarse_view(dataset())
    assert data.fine is not None
    split = make_split(
        data, ForgetParams(scenario="mixed", classes=("tops",), subclasses=("Sandal",), ids=tuple(ids(data, 2))), 0
    )
    assert split.classes == (data.classes.index("tops"),)
    labels = np.arange(30) % 3
    assert split.forget.tolist() == sorted({*np.flatnonzero(labels != 2).tolist(), 2})
    assert split.test_forget.tolist() == np.flatnonzero(np.arange(9) % 3 != 2).tolist()
    with pytest.raises(MeguError, match="leaves no training image of"):
        make_split(
            dataset(), ForgetParams(scenario="mixed", classes=("Shirt",), ids=tuple(ids(dataset(), *range(0, 30, 3)))), 0
        )
    with pytest.raises(ValueError, match="at least one class, or"):
        ForgetParams(scenario="mixed", classes=())
