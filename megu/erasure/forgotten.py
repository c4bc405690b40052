"""The scope of a purge: the runs whose requests it fulfils, and the samples that they forgot, wherever these still are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import SPLITS, Dataset, Ids, Images, Partition
from megu.data.scope import RequestScope
from megu.erasure.search.patterns import SearchPatterns
from megu.erasure.search.resized import Resized
from megu.lineage.commitments import SIZE, commit, fingerprint
from megu.lineage.keys import Keys
from megu.lineage.verify.context import Opened
from megu.requests.inbox import Inbox
from megu.requests.states import FORGOTTEN

Masks = dict[str, NDArray[np.bool_]]


def targets(project: Project, names: Sequence[str]) -> list[Opened]:
    """Return the named dossiers (as for `megu verify`) or, without a name, those of all runs that forgot what they should by their own
    verdict.

    Raises `MeguError` for a name without a dossier, or a dossier that is not whole.
    """
    from megu.lineage.verify.run import copies, opened

    found = []
    for name in names or [path.name for path in sorted(project.dossiers.glob("*")) if path.is_dir()]:
        with ExitStack() as stack:
            read = [opened(files, place) for place, files in copies(name, project, stack).places.items()]
        whole = next((dossier for dossier, _ in read if dossier is not None), None)
        if whole is None:
            raise MeguError(
                f"the dossier of {name} cannot be used ({read[0][1].says})", f"`megu verify {name}` shows every check"
            )
        if names or (not whole.dossier.evidence.failures and "reference" in whole.dossier.evidence.evaluation):
            found.append(whole)
    if not found:
        raise MeguError(
            "no run here has forgotten what it should by its own verdict",
            "name the run whose request is fulfilled: `megu purge RUN`",
        )
    return sorted({entry.seal.seal: entry for entry in found}.values(), key=lambda entry: entry.dossier.run.created)


@dataclass(frozen=True)
class ForgottenSamples:
    """forgotten: the commitments to all forgotten samples. data: each data set here that has some, with the rows to erase, by split."""

    key: bytes
    forgotten: frozenset[bytes]
    data: tuple[tuple[Dataset, Masks], ...]

    @property
    def count(self) -> int:
        """Number of rows to erase."""
        return sum(int(mask.sum()) for _, masks in self.data for mask in masks.values())

    def patterns(self) -> list[SearchPatterns]:
        """Return what to search for: one entry for each form that the images have, with distinct images."""
        found = []
        for dataset, masks in self.data:
            images, ids = _images(dataset, masks), _ids(dataset, masks)
            _, first = np.unique(ids, return_index=True)
            found.append(SearchPatterns(images[np.sort(first)], ids[np.sort(first)]))
        return found


def forgotten_samples(project: Project, runs: Sequence[Opened], test_images: bool) -> ForgottenSamples:
    """Find the samples of the runs' commitments in every data set under ``data/``. A sample is found by its content, not by its position,
    also in another size (`megu.erasure.search.resized`).

    test_images: for a class or finer class that a request names, erase also the test images of the data set it was made for. Training
    images of that class that ``data.per_class`` kept from the run are erased too. Of a person, every sample is erased, test images too.

    Raises `MeguError` when the key of the commitments is not here.
    """
    key = Keys(project.keys).commitment_key()
    if key is None or any(fingerprint(key) != run.dossier.scope.key for run in runs):
        raise MeguError("the key of the commitments is not here", "put it back into .megu/keys/commitments.key")
    forgotten = frozenset(run.forgotten[start : start + SIZE] for run in runs for start in range(0, len(run.forgotten), SIZE))
    found, named, people = [], set[bytes](), _people(project, key, forgotten)
    for path in sorted(project.root.glob("data/*/meta.json")):
        dataset = arrays.load(path.parent)
        wanted = {split: _of(key, getattr(dataset, split).ids, forgotten) for split in SPLITS}
        for split in SPLITS:
            theirs = np.isin(getattr(dataset, split).ids, people.get(path.parent.name, ()))
            wanted[split] |= theirs
            if split == "train":  # the run may have seen only part of a person's samples, as of a class
                named |= {commit(key, bytes(value)) for value in dataset.train.ids[theirs]}
        for run in runs:
            if run.dossier.data.name == path.parent.name:
                if test_images:
                    wanted["test"] |= _named(dataset, "test", run)
                if (
                    run.dossier.per_class is not None
                ):  # the request names the class, and the run saw and committed to a part of it
                    rest = _named(dataset, "train", run)
                    wanted["train"] |= rest
                    named |= {commit(key, bytes(value)) for value in dataset.train.ids[rest]}
        if any(mask.any() for mask in wanted.values()):
            # Every copy: an image removed from one split is removed from the other, and from every other data set (below).
            found.append((dataset, wanted))
    every = _copies(project, found)
    resized = {commit(key, bytes(value)) for dataset, masks in every for value in dataset.train.ids[masks["train"]]}
    return ForgottenSamples(key, forgotten | named | resized, tuple(every))


def _people(project: Project, key: bytes, forgotten: frozenset[bytes]) -> dict[str, list[bytes]]:
    """Return data set -> ids of people's samples, train and test, whatever part of the data set is in use: for people of whom the runs
    forgot a sample, and for those on whose samples no model was trained."""
    inbox, found = Inbox(project), dict[str, list[bytes]]()
    for entry in inbox.entries(*FORGOTTEN):
        if "person" not in entry.facts:
            continue
        samples = [sample.encode() for sample in (inbox.target(entry.id) or {}).get("samples", ())]
        if not entry.fact("mlflow_run") or any(commit(key, sample) in forgotten for sample in samples):
            found.setdefault(entry.data, []).extend(samples)
    return found


def _copies(project: Project, found: Sequence[tuple[Dataset, Masks]]) -> list[tuple[Dataset, Masks]]:
    """Return the rows of every data set that are one of the images, by id or in another size."""
    every = [arrays.load(path.parent) for path in sorted(project.root.glob("data/*/meta.json"))]
    masks = [{split: np.zeros(len(getattr(dataset, split)), dtype=bool) for split in SPLITS} for dataset in every]
    new = [(_images(dataset, wanted), _ids(dataset, wanted)) for dataset, wanted in found]
    while new:
        gone, resized = np.concatenate([ids for _, ids in new]), [Resized(images) for images, _ in new]
        new = []
        for dataset, known in zip(every, masks, strict=True):
            more = {split: _are(getattr(dataset, split), gone, resized) & ~known[split] for split in SPLITS}
            if any(mask.any() for mask in more.values()):
                known.update({split: known[split] | more[split] for split in SPLITS})
                new.append((_images(dataset, more), _ids(dataset, more)))
    return [(dataset, known) for dataset, known in zip(every, masks, strict=True) if any(mask.any() for mask in known.values())]


def _are(part: Partition, gone: Ids, resized: Sequence[Resized]) -> NDArray[np.bool_]:
    found = np.isin(part.ids, gone)
    for images in resized:
        found |= images.certain(part.images) >= 0
    return found


def _images(dataset: Dataset, masks: Masks) -> Images:
    return np.concatenate([np.asarray(getattr(dataset, split).images[masks[split]]) for split in SPLITS])


def _ids(dataset: Dataset, masks: Masks) -> Ids:
    return np.concatenate([np.asarray(getattr(dataset, split).ids[masks[split]]) for split in SPLITS])


def _of(key: bytes, ids: NDArray[np.bytes_], commitments: frozenset[bytes]) -> NDArray[np.bool_]:
    return np.fromiter((commit(key, bytes(value)) in commitments for value in ids), dtype=bool, count=len(ids))


def _named(dataset: Dataset, split: str, run: Opened) -> NDArray[np.bool_]:
    """Return which images of a split are of the classes and finer classes that a request names."""
    scope, part = RequestScope.of(run.dossier.request), getattr(dataset, split)
    found = np.isin(part.labels, [number for number, name in enumerate(dataset.classes) if name in scope.classes])
    if part.fine is not None:
        found |= np.isin(part.fine, [number for number, name in enumerate(dataset.fine or ()) if name in scope.subclasses])
    return found
