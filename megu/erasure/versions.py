"""What becomes of a data set's old version: its files, links to them, and their copies in DVC's cache and remotes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.files.store import sha256_file
from megu.core.project import Project
from megu.data import advice, pins
from megu.data.arrays import SPLITS, Dataset
from megu.erasure.decisions import Action, Plan, entry
from megu.erasure.forgotten import ForgottenSamples, Masks
from megu.erasure.search import stores
from megu.erasure.search.stores import Stores
from megu.lineage.commitments import commit, commit_all
from megu.lineage.dossier import sha256
from megu.lineage.purged import locations as places
from megu.lineage.purged.document import OF_VERSION, DataErased, Rows, holds_samples


def decide(project: Project, plan: Plan, found: ForgottenSamples, *, alone: bool) -> tuple[Stores, set[str]]:
    """Decide on the data sets and on what the stores have of their present versions. alone: see `Stores`.

    Return the stores, and the MD5s of the files that hold samples.
    """
    for dataset, _ in found.data:
        if more := advice.strays(dataset.path):  # the folder is replaced as a whole
            raise MeguError(advice.beside(dataset.path.name, more), f"move them out of data/{dataset.path.name}")
    changed = [_changed(dataset, masks) for dataset, masks in found.data]
    stays = [
        _md5(path)
        for (dataset, _), gone in zip(found.data, changed, strict=True)
        for path in sorted(dataset.path.iterdir())
        if path.is_file() and path not in gone
    ]
    holding = {_md5(path) for gone in changed for path in gone if holds_samples(path.name)}
    known = stores.find(project, [dataset.path.name for dataset, _ in found.data], stays, alone)
    for (dataset, masks), gone in zip(found.data, changed, strict=True):
        name = dataset.path.name
        before = pins.hash_dir(dataset.path)
        plan.data.append(
            DataErased(
                name=name,
                before=vars(before),
                after={},
                trained=sha256(commit_all(found.key, [bytes(value) for value in dataset.train.ids])),
                train=_rows(found.key, dataset, masks, "train"),
                test=_rows(found.key, dataset, masks, "test"),
            )
        )
        counts = " and ".join(f"{int(mask.sum()):,} {split}" for split, mask in masks.items() if mask.any())
        plan.actions.append(Action("data", places.DATA, name, None, f"a new version without {counts} images"))
        for path in gone:
            what = project.relative(project.data(name) / path.name)
            digest = sha256_file(path) if holds_samples(path.name) else None
            why = "of the version that has the images"
            plan.actions.append(Action("replaced", places.DATA, what, digest, why, personal=digest is not None))
            if digest is not None and _is_elsewhere(project, known, path):
                why = f"{what} is only a link to it: take it away yourself"
                plan.residual.append(entry(places.DATA, project.relative(path.resolve()), why, digest))
        _in_stores(project, plan, known, name, gone, before.md5)
    return known, holding


def _rows(key: bytes, dataset: Dataset, masks: Masks, split: str) -> Rows:
    positions = masks[split].nonzero()[0].tolist()
    ids = getattr(dataset, split).ids
    return Rows(positions=positions, commitments="".join(commit(key, bytes(ids[position])).hex() for position in positions))


def _changed(dataset: Dataset, masks: Masks) -> list[Path]:
    """Return the files of this version that the next does not have: those of the splits that change, and the facts."""
    splits = [split for split in SPLITS if masks[split].any()]
    names = {f"{split}_{column}.npy" for split in splits for column in ("images", "labels", "ids", "fine", "names")}
    return [path for path in sorted(dataset.path.iterdir()) if path.name in {*names, "meta.json"}]


def _is_elsewhere(project: Project, known: Stores, path: Path) -> bool:
    """Return whether a file of a data set is a link, or in a linked folder, that leads to a place that is not searched."""
    real = path.resolve()
    return not real.is_relative_to(project.root.resolve()) and known.store_of(real) is None


def _in_stores(project: Project, plan: Plan, known: Stores, name: str, gone: Sequence[Path], listing: str) -> None:
    """Decide on the stored files of this version that the next does not have, and on its listing.

    Images and ids are personal wherever they are. So are names, but another data set may have the same ones; labels say nothing.
    """
    for md5, role in [(listing, ""), *((_md5(path), path.name) for path in gone)]:
        for store, path in known.of(md5):
            named = role.endswith("_names.npy") and not known.refers(path)
            personal = holds_samples(role) or named
            plan.take(project, known, store.surface, path, sha256_file(path), OF_VERSION.format(name), personal=personal)


def _md5(path: Path) -> str:
    """Return the name of a file in DVC's cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
