"""What a batch forgets: what its requests name, and everything that earlier requests had forgotten.

A model that forgets a new request, but is repaired on samples that an earlier request had forgotten, or compared with a retrain on them,
would bring those back. So the forget set only ever grows: each version has forgotten all of it, and its evidence covers all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.data.arrays import Dataset, load
from megu.data.splits import ForgetParams, emptied, ids_of_files, ids_still_here
from megu.lineage.commitments import commit

Target = Mapping[str, Sequence[str]]


class DatasetContents:
    """The content of a data set, looked up once for any number of requests."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        train = dataset.train
        self.labels = Counter(train.labels.tolist())
        self.fine = Counter([] if train.fine is None else train.fine.tolist())
        self.positions: dict[str, list[int]] = {}
        for position, identifier in enumerate(train.ids.tolist()):
            self.positions.setdefault(identifier.decode(), []).append(position)
        self.tested = {identifier.decode() for identifier in dataset.test.ids.tolist()}

    @property
    def _of_what(self) -> str:
        limit = self.dataset.limit
        return "the data set" if limit is None else f"the data set as data.per_class leaves it ({limit} of each class)"

    def fault(self, target: Target) -> tuple[str, int]:
        """Return why a request cannot be fulfilled (empty when it can), and how many training images it covers. The reason names no sample:
        it goes into the ledger."""
        if target["classes"]:
            return self._classes(target["classes"], self.dataset.classes, self.labels)
        if target["subclasses"]:
            if self.dataset.fine is None:
                return "the data set has no finer classes", 0
            return self._classes(target["subclasses"], self.dataset.fine, self.fine)
        if target.get("samples"):
            return self._person(set(target["samples"]))
        try:
            ids = {*target["ids"], *ids_of_files(self.dataset, target["files"])}
        except MeguError:
            named = "" if self.dataset.train.names is not None else ": it did not come as files"
            return f"not all {len(target['files'])} files are training images of {self._of_what}{named}", 0
        unknown = ids - set(self.positions)
        if unknown:
            tested = len(unknown & self.tested)
            where = f", {tested} of them are test images, which no model was trained on" if tested else ""
            return f"{len(unknown)} of {len(ids)} ids are not training images of {self._of_what}{where}", 0
        return self._images(ids)

    def _person(self, samples: set[str]) -> tuple[str, int]:
        """As `fault`, for all samples of a person; possibly no model was trained on any of them."""
        if samples.isdisjoint(self.positions) and samples.isdisjoint(self._whole):
            return f"none of the {len(samples)} samples is in the data set", 0
        return self._images(samples & self.positions.keys())

    @cached_property
    def _whole(self) -> set[str]:
        """The ids of the test images, and of the training images that ``data.per_class`` leaves out."""
        whole = self.dataset if self.dataset.limit is None else load(self.dataset.path)
        return self.tested | {identifier.decode() for identifier in whole.train.ids.tolist()}

    def _images(self, ids: set[str]) -> tuple[str, int]:
        gone = [position for identifier in ids for position in self.positions[identifier]]
        left = self.labels - Counter(self.dataset.train.labels[gone].tolist())
        if len(left) < len(self.labels):
            return "it leaves no training image of a class, so it must ask for the class", 0
        return "", len(gone)

    @staticmethod
    def _classes(asked: Sequence[str], names: Sequence[str], counts: Counter[int]) -> tuple[str, int]:
        unknown = [name for name in asked if name not in names]
        if unknown:
            return f"{len(unknown)} of {len(asked)} classes are not in the data set", 0
        chosen = [counts[names.index(name)] for name in set(asked)]
        if not sum(chosen):
            return "the data set has no training image of it", 0
        if sum(chosen) == sum(counts.values()):
            return "it leaves no training image at all", 0
        return "", sum(chosen)

    def committed(self, key: bytes, wanted: AbstractSet[bytes]) -> set[str]:
        """Return the ids of the training images that these are commitments to (`megu.lineage.commitments.commit`)."""
        return {identifier for identifier in self.positions if wanted and commit(key, identifier.encode()) in wanted}

    def still_here(self, target: Target) -> dict[str, set[str]]:
        """Return the part of an earlier request that the data set still has, its files by their ids."""
        return {
            "classes": set(target["classes"]) & set(self.dataset.classes),
            "subclasses": set(target["subclasses"]) & set(self.dataset.fine or ()),
            "ids": ({*target["ids"], *target.get("samples", ())} & self.positions.keys())
            | ids_still_here(self.dataset, target["files"]),
        }

    def samples(self, target: Target) -> set[str]:
        """Return the ids of every training image that a request covers and the data set still has."""
        here, names, fine = self.still_here(target), self.dataset.classes, self.dataset.fine or ()
        inside = {
            identifier
            for identifier, positions in self.positions.items()
            if any(
                names[int(self.dataset.train.labels[at])] in here["classes"]
                or (self.dataset.train.fine is not None and fine[int(self.dataset.train.fine[at])] in here["subclasses"])
                for at in positions
            )
        }
        return here["ids"] | inside

    def combined(self, new: Iterable[Target], before: Iterable[Target], more: Iterable[str] = ()) -> ForgetParams:
        """Return one forget set of new requests and all earlier ones. A class whose images are all forgotten is named as a class.

        more: further ids (`committed`, of what was forgotten without a request or whose target was deleted). Raises `MeguError` when
        a file that a new request names is not there.
        """
        classes, subclasses, ids = set[str](), set[str](), set(more)
        for target in new:
            classes |= set(target["classes"])
            subclasses |= set(target["subclasses"])
            ids |= {*target["ids"], *ids_of_files(self.dataset, target["files"])}
            ids |= self.positions.keys() & set(target.get("samples", ()))
        for target in before:
            found = self.still_here(target)
            classes |= found["classes"]
            subclasses |= found["subclasses"]
            ids |= found["ids"]
        train, names, fine = self.dataset.train, self.dataset.classes, self.dataset.fine or ()
        gone = self._within(classes, subclasses)
        gone[[at for identifier in ids for at in self.positions.get(identifier, ())]] = True
        classes |= {name for _, name in emptied(train.labels, names, gone)}
        if train.fine is not None:
            subclasses |= {name for _, name in emptied(train.fine, fine, gone)}
            subclasses -= {name for _, name in emptied(train.fine, fine, self._within(classes, frozenset()))}
        inside = self._within(classes, subclasses)
        return forget(classes, subclasses, (i for i in ids if i not in self.positions or not inside[self.positions[i]].all()))

    def _within(self, classes: AbstractSet[str], subclasses: AbstractSet[str]) -> NDArray[np.bool_]:
        """Return the mask (N,) of the training images of these classes and finer classes."""
        train, names, fine = self.dataset.train, self.dataset.classes, self.dataset.fine or ()
        inside = np.isin(train.labels, [number for number, name in enumerate(names) if name in classes])
        if train.fine is not None:
            inside |= np.isin(train.fine, [number for number, name in enumerate(fine) if name in subclasses])
        return inside


def forget(classes: Iterable[str], subclasses: Iterable[str], ids: Iterable[str]) -> ForgetParams:
    """Return the parameters for all of these together: a plain scenario where there is only one kind."""
    whole, finer, listed = (tuple(sorted(names)) for names in (classes, subclasses, ids))
    if whole and not finer and not listed:
        return ForgetParams(scenario="class", classes=whole)
    if finer and not whole and not listed:
        return ForgetParams(scenario="subclass", classes=finer)
    if listed and not whole and not finer:
        return ForgetParams(scenario="ids", classes=(), ids=listed)
    return ForgetParams(scenario="mixed", classes=whole, subclasses=finer, ids=listed)
