"""Forget splits: which samples a request forgets, and which stay.

A request names classes or sample ids, never positions; the split turns it into positions in one version of a data set. Run as
``python -m megu.data.splits`` in a project (the `split` stage of ``dvc.yaml``) it writes ``splits/`` from ``data/`` and
``params.yaml``. Splitting needs only numpy; reading the file needs YAML, which is imported there.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.data.arrays import Dataset, limited, load
from megu.data.images import duplicates
from megu.data.images.layout import IMAGES, SPLIT_FOLDERS
from megu.data.naming import nfc
from megu.data.scope import RequestScope
from megu.data.writing import atomic_folder, write_array, write_json

Positions = NDArray[np.int64]
Scenario = Literal["class", "subclass", "random", "ids", "mixed"]
#: What happens to copies of forgotten images that are not identical to the pixel (`megu.data.images.duplicates`).
NearDuplicates = Literal["show", "include"]

#: The default class to forget; a distinct object, so that it can be told apart from the same class when a user names it.
_UNSAID = ("Sneaker",)
_INDICES = ("forget", "retain", "test_forget", "test_retain")


@dataclass(frozen=True, kw_only=True)
class ForgetParams:
    """What is to be forgotten.

    scenario: "class" (whole classes), "subclass" (finer classes inside a superclass that the model was trained on), "random" (training
        images drawn with the seed), "ids" (listed images) or "mixed" (classes, finer classes and images together, as when several
        requests are combined).
    classes: names of classes, for "class" and for "mixed" (none unless they are named); for "subclass" the names of finer classes in
        a data set labelled by superclass (cifar20).
    subclasses: names of finer classes, for "mixed", where classes names whole classes.
    count: how many training images, for "random"; at least 1.
    ids: sample ids (32 hexadecimal digits; ``data/<name>/train_ids.npy`` has them), for "ids" and "mixed".
    files: names of training images in a data set that came as files ("train/cat/001.png", or "cat/001"), also for "ids" and "mixed".
    near_duplicates: what happens to retained training images that are almost identical to forgotten ones: they are shown in the report
        ("show"), or forgotten too ("include").
    """

    __pydantic_config__ = STRICT

    scenario: Scenario = "class"
    classes: tuple[str, ...] = _UNSAID
    subclasses: tuple[str, ...] = ()
    count: int = 100
    ids: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    near_duplicates: NearDuplicates = "show"

    def __post_init__(self) -> None:
        if self.scenario == "mixed" and self.classes is _UNSAID:
            object.__setattr__(self, "classes", ())  # a list of images alone does not include the default class
        for name in ("classes", "subclasses", "files"):
            object.__setattr__(self, name, tuple(map(nfc, getattr(self, name))))
        check("scenario", self.scenario, self.scenario in get_args(Scenario), f"one of {', '.join(get_args(Scenario))}")
        check("count", self.count, self.count >= 1, "at least 1")
        known = get_args(NearDuplicates)
        check("near_duplicates", self.near_duplicates, self.near_duplicates in known, f"one of {', '.join(known)}")
        if self.scenario in ("class", "subclass"):
            check("classes", self.classes, len(self.classes) > 0, "at least one class name")
        if self.scenario == "ids":
            check("ids", self.ids, len(self.ids) + len(self.files) > 0, "at least one sample id, or files at least one name")
        if self.scenario == "mixed":
            named = len(self.classes) + len(self.subclasses) + len(self.ids) + len(self.files)
            check("classes", self.classes, named > 0, "at least one class, or subclasses, ids or files at least one name")


@dataclass(frozen=True)
class ForgetSplit:
    """Positions to forget and to retain, each int64 and ascending.

    Attributes
    ----------
    classes: indices of the classes that are forgotten entirely and so may never be a perturbing label; empty unless the scenario
        is "class" or "mixed".
    forget, retain: positions in the train partition; together they are all of it.
    test_forget, test_retain: positions in the test partition: the test images of the forgotten (sub)class and the others. For
        "random" and "ids" there is no test image to forget, and ``test_retain`` is everything.
    """

    scenario: str
    classes: tuple[int, ...]
    forget: Positions
    retain: Positions
    test_forget: Positions
    test_retain: Positions


def make_split(dataset: Dataset, params: ForgetParams, seed: int) -> ForgetSplit:
    """Apply a request to a data set. ``seed`` matters only in the "random" scenario.

    Raises
    ------
    MeguError: the data set does not have a class or an id, or nothing would be left to retain.
    """
    forget, test_forget = np.zeros(len(dataset.train), dtype=bool), np.zeros(len(dataset.test), dtype=bool)
    whole: tuple[int, ...] = ()
    scope = RequestScope.of(vars(params))
    for kind, asked in (("class", scope.classes), ("subclass", scope.subclasses)):
        if not asked:
            continue
        names, train, test = _labels(dataset, kind)
        chosen = tuple(sorted({class_index(names, name, dataset.name) for name in asked}))
        forget |= np.isin(train, chosen)
        test_forget |= np.isin(test, chosen)
        whole = chosen if kind == "class" else whole
    if scope.drawn:
        forget |= _with_ids(dataset, _draw(dataset, scope.samples, seed))
    elif scope.samples:
        forget |= _with_ids(dataset, [*params.ids, *ids_of_files(dataset, params.files)])
    if not forget.any():
        raise MeguError(f"the request forgets no training image of {dataset.name!r}", "name classes that have training images")
    if forget.all():
        raise MeguError(
            f"the request forgets all {len(forget)} training images of {dataset.name!r}", "leave something to retain"
        )
    _check_no_class_is_emptied(dataset, forget, whole)
    return ForgetSplit(
        scenario=params.scenario,
        classes=whole,
        forget=np.flatnonzero(forget),
        retain=np.flatnonzero(~forget),
        test_forget=np.flatnonzero(test_forget),
        test_retain=np.flatnonzero(~test_forget),
    )


def widened(dataset: Dataset, params: ForgetParams, seed: int, groups: duplicates.Groups | None = None) -> ForgetParams:
    """Return the request extended by the near-duplicates of what it forgets, where it includes them: their ids are listed too.

    groups: those of the data set (`megu.data.images.duplicates.groups`), if already computed. Raises `MeguError` as `make_split` does.
    """
    if params.near_duplicates == "show":
        return params
    split = make_split(dataset, params, seed)
    more = duplicates.copies(duplicates.groups(dataset) if groups is None else groups, split.forget, split.retain)
    if not len(more):
        return params
    scope = RequestScope.of(vars(params))
    listed = {value.decode() for value in dataset.train.ids[more].tolist()} | set(() if scope.drawn else params.ids)
    if scope.drawn:  # list the drawn images too: with more to forget, the draw would differ
        listed |= {value.decode() for value in dataset.train.ids[split.forget].tolist()}
    scenario: Scenario = "mixed" if scope.names else "ids"
    files = () if scope.drawn else params.files
    return replace(
        params, scenario=scenario, classes=scope.classes, subclasses=scope.subclasses, ids=tuple(sorted(listed)), files=files
    )


def _labels(dataset: Dataset, kind: str) -> tuple[Sequence[str], Positions, Positions]:
    """Return the names that a request by class may use, and the labels in train and test that index them."""
    if kind == "class":
        return dataset.classes, dataset.train.labels, dataset.test.labels
    if dataset.fine is None or dataset.train.fine is None or dataset.test.fine is None:
        has = "is labelled by its finer classes" if dataset.coarse else "has no superclasses"
        raise MeguError(
            f"forget.scenario = 'subclass', but data set {dataset.name!r} {has}",
            "fetch cifar20, or add the images with --superclasses FILE --labels coarse; or use scenario: class",
        )
    return dataset.fine, dataset.train.fine, dataset.test.fine


def _check_no_class_is_emptied(dataset: Dataset, forget: NDArray[np.bool_], whole: Sequence[int]) -> None:
    """Refuse a request that empties a class without naming it: it would be forgotten as a class, which changes every metric's meaning."""
    gone = [repr(name) for k, name in emptied(dataset.train.labels, dataset.classes, forget) if k not in whole]
    if gone:
        raise MeguError(
            f"the request leaves no training image of {_shorten(gone)}",
            "ask for the whole class: forget.scenario=class",
        )


def emptied(labels: NDArray[np.integer[Any]], names: Sequence[str], gone: NDArray[np.bool_]) -> list[tuple[int, str]]:
    """Return the classes, as number and name, whose images are all in the mask ``gone`` (N,). labels: (N,)."""
    before, after = (np.bincount(chosen, minlength=len(names)) for chosen in (labels, labels[~gone]))
    return [(number, names[number]) for number in np.flatnonzero((before > 0) & (after == 0)).tolist()]


def class_index(classes: Sequence[str], name: str, dataset: str) -> int:
    """Return the index of a class in ``classes``; the name must match exactly, in any Unicode spelling.

    Raises
    ------
    MeguError: the class does not exist; the message has the nearest names.
    """
    same = [number for number, known in enumerate(classes) if nfc(known) == nfc(name)]
    if len(same) > 1:
        raise MeguError(
            f"forget.classes: data set {dataset!r} has {name!r} twice, in two Unicode spellings",
            "add its images again: they become one class",
        )
    if same:
        return same[0]
    by_lower = {known.lower(): known for known in classes}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {_shorten(classes)}"
    raise MeguError(f"forget.classes: data set {dataset!r} has no class {name!r}", hint)


def ids_of_files(dataset: Dataset, files: Sequence[str]) -> list[str]:
    """Return the ids of the training images with these names."""
    if not files:
        return []
    if dataset.train.names is None:
        raise MeguError(
            f"forget.files: data set {dataset.name!r} did not come as files, so its images have no names",
            "name them by forget.ids",
        )
    found = _positions_of(dataset, files)
    if unknown := [file for file in files if file not in found]:
        tested = {} if dataset.test.names is None else {nfc(name.decode()) for name in dataset.test.names.tolist()}
        in_test = any(name in tested for name in file_names(unknown[0]))
        where = "in its test split, which no model was trained on" if in_test else _absent(dataset)
        raise MeguError(
            f"forget.files: {len(unknown)} of {len(files)} are not training images of {dataset.name!r}; {unknown[0]!r} is {where}",
            "write class/file or train/class/file, as the images were added",
        )
    return [dataset.train.ids[position].decode() for position in found.values()]


def ids_still_here(dataset: Dataset, files: Sequence[str]) -> set[str]:
    """Return the ids of those files that are training images of the data set; the others have none."""
    return {dataset.train.ids[position].decode() for position in _positions_of(dataset, files).values()}


def _positions_of(dataset: Dataset, files: Sequence[str]) -> dict[str, int]:
    """Return file -> position of the training image, for the files that exist."""
    if not files or dataset.train.names is None:
        return {}
    known = {nfc(name.decode()): position for position, name in enumerate(dataset.train.names.tolist())}
    asked = [file for file in files if _folder(file) != "test"]
    return {file: position for file in asked for name in file_names(file) if (position := known.get(name)) is not None}


def file_names(file: str) -> tuple[str, ...]:
    """Return the names that a file may have in a data set: class/file, with and without extension; the last that exists counts."""
    path = PurePosixPath(*PurePosixPath(file).parts[-2:])
    return (str(path.with_suffix("")), str(path)) if path.suffix.lower() in IMAGES else (str(path),)


def _folder(file: str) -> str:
    """Return the split that a file's path names: "test", or "train" where it names none."""
    parts = PurePosixPath(file).parts
    return SPLIT_FOLDERS.get(parts[-3].lower(), "train") if len(parts) > 2 else "train"


def _absent(dataset: Dataset) -> str:
    """Say what a sample is missing from: the data set, or the part of it that ``limit`` leaves."""
    return "not in it" if dataset.limit is None else f"not among the {dataset.limit} of each class that data.per_class leaves"


def _with_ids(dataset: Dataset, ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return the mask (N,) of the training images with these ids, every copy included: the model would remember a retained copy."""
    wanted = np.array([identifier.encode("ascii", "replace") for identifier in ids])
    unknown = [identifier for identifier, known in zip(ids, np.isin(wanted, dataset.train.ids), strict=True) if not known]
    if unknown:
        in_test = bool(np.isin(unknown[0].encode("ascii", "replace"), dataset.test.ids))
        where = "in its test split, which no model was trained on" if in_test else _absent(dataset)
        raise MeguError(
            f"forget.ids: {len(unknown)} of {len(ids)} are not training images of {dataset.name!r}; {unknown[0]!r} is {where}",
            "ids are the 32 hex characters of data/<name>/train_ids.npy",
        )
    return np.isin(dataset.train.ids, wanted)


def _draw(dataset: Dataset, count: int, seed: int) -> list[str]:
    """Draw ``count`` training images, ordered by the hash of (seed, id), so the draw does not depend on the order of the data set.

    Only images that occur once are drawn, so exactly ``count`` positions are forgotten and no copy of them is retained.
    """
    identifiers, copies = np.unique(dataset.train.ids, return_counts=True)
    once = [bytes(identifier) for identifier in identifiers[copies == 1]]
    if count > len(once):
        raise MeguError(
            f"forget.count = {count}, but {dataset.name!r} has {len(once)} distinct training images", "ask for fewer"
        )
    key = str(seed).encode()
    return [i.decode() for i in sorted(once, key=lambda i: blake2b(i, digest_size=16, key=key[:64]).digest())[:count]]


def _shorten(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def save_split(folder: Path, split: ForgetSplit) -> None:
    """Write a split as ``.npy`` index files and ``split.json``, completely or not at all; equal splits give equal bytes."""
    with atomic_folder(folder) as temporary:
        for name in _INDICES:
            write_array(temporary / f"{name}.npy", getattr(split, name))
        sizes = {name: len(getattr(split, name)) for name in _INDICES}
        write_json(temporary / "split.json", {"scenario": split.scenario, "classes": list(split.classes), "sizes": sizes})


def load_split(folder: Path) -> ForgetSplit:
    """Read what `save_split` wrote.

    Raises
    ------
    MeguError: files are missing or damaged.
    """
    try:
        meta = json.loads((folder / "split.json").read_text(encoding="utf-8"))
        indices = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _INDICES}
        for name, index in indices.items():
            if index.dtype != np.int64 or index.shape != (meta["sizes"][name],):
                raise ValueError(f"{name}.npy does not fit split.json")
        return ForgetSplit(scenario=meta["scenario"], classes=tuple(meta["classes"]), **indices)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise MeguError(f"the forget split in {folder} is missing or damaged ({error})", "run `dvc repro split`") from error


def read_params(root: Path) -> tuple[str, ForgetParams, int]:
    """Return the data set's name, the request and the seed from ``<root>/params.yaml``.

    Raises
    ------
    MeguError: the file is missing, is not YAML, or has an unknown key or a value out of range.
    """
    import yaml

    from megu.core.settings import scalars

    path = root / "params.yaml"
    try:
        values = _values(path)
        request = scalars.resolve(values.get("forget") or {}, ForgetParams)
        known = {field.name for field in fields(ForgetParams)}
        if unknown := set(request) - known:
            raise ValueError(f"forget has no key {sorted(unknown)[0]!r}; it has {', '.join(sorted(known))}")
        for name in {"classes", "subclasses", "ids", "files"} & set(request):
            request[name] = tuple(request[name])
        name = scalars.resolve((values.get("data") or {}).get("name", "fashion-mnist"), str)
        return name, ForgetParams(**request), int(scalars.resolve(values.get("seed", 0), int))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise MeguError(f"{path} cannot be used: {error}", "correct it and run again") from error


def read_limit(root: Path) -> int | None:
    """Return ``data.per_class`` of ``<root>/params.yaml``; None where it is not set."""
    from megu.core.settings import scalars

    limit = scalars.resolve((_values(root / "params.yaml").get("data") or {}).get("per_class"), int | None)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise MeguError(f"data.per_class = {limit!r} is not a number of images", "give at least 1, or null for all")
    return limit


def _values(path: Path) -> dict[str, Any]:
    from megu.core.settings import merging, scalars

    values: dict[str, Any] = scalars.parse(merging.read_text(path)) or {}
    return values


def main(root: Path) -> None:
    """Make ``<root>/splits`` from ``<root>/data`` and ``<root>/params.yaml``."""
    name, params, seed = read_params(root)
    dataset = limited(load(root / "data" / name), read_limit(root))
    save_split(root / "splits", make_split(dataset, widened(dataset, params, seed), seed))


def as_stage(make: Callable[[Path], None]) -> None:
    """Run a DVC stage in the current folder; an error that the user can fix becomes one line and an exit code."""
    try:
        make(Path.cwd())
    except MeguError as error:
        print(f"megu: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    as_stage(main)
