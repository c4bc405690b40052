"""Screening data sets against the project's suppression list: erased images are left out or refused wherever a data set comes from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json, writing
from megu.core.progress import track
from megu.core.project import Project
from megu.data import advice, arrays, erasing, pins
from megu.data.arrays import SPLITS, Dataset
from megu.data.naming import shown
from megu.data.params import Suppressed
from megu.data.writing import atomic_folder
from megu.suppression.listed import Matches, SuppressionList
from megu.suppression.store import Suppressions

#: Images that are listed by name.
_SHOWN = 3


@dataclass(frozen=True)
class Screened:
    """The part of a data set that is on the list. found: by split."""

    dataset: Dataset
    listed: SuppressionList
    found: dict[str, Matches]

    @property
    def certain(self) -> int:
        return sum(int((matches.certain >= 0).sum()) for matches in self.found.values())

    def lines(self, kind: str) -> Iterator[str]:
        """Yield one line per record, with a few names: "3 images erased by …, on …: train/cat/7". kind: "certain" or "suspected"."""
        places = [
            (int(number), _name(self.dataset, split, int(at)))
            for split, matches in self.found.items()
            for at, number in enumerate(getattr(matches, kind))
            if number >= 0
        ]
        for number, count in Counter(number for number, _ in places).items():
            names = [name for own, name in places if own == number]
            more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
            what = f"{count:,} {'image' if count == 1 else 'images'}"
            said = "erased" if kind == "certain" else "much like one that was erased"
            yield f"{what} {said} {self.listed.headers[number]}: {', '.join(names[:_SHOWN])}{more}"


def screened(project: Project, folder: Path) -> Screened | None:
    """Screen a data set's folder against the list; None where the project has no list.

    Raises `MeguError` when the list is not whole, or its key is not here.
    """
    listed = Suppressions(project).opened()
    if not listed.headers:
        return None
    dataset = arrays.load(folder)
    parts = {split: getattr(dataset, split).images for split in SPLITS}
    with track(f"look for erased images in {dataset.name}", total=sum(map(len, parts.values())), unit="images") as advance:
        found = {}
        for split, images in parts.items():
            found[split] = listed.find(images)
            advance(len(images))
    return Screened(dataset, listed, found)


def screen(project: Project, policy: Suppressed, folder: Path) -> list[str]:
    """Leave erased images out of a data set's folder, or refuse the folder. Return what was left out and what is suspected, one line each.

    Without the erased images the folder is the version that a purge makes of it. If it is in its place under ``data/``, that version is
    pinned, and a folder that was screened since it or the list last changed is not screened again. With the first two arguments set, this
    function is a `megu.data.sources.providers.Screen`.

    Raises `MeguError` under the policy "refuse", and for a folder that holds more than a data set.
    """
    in_place = folder == project.data(folder.name)
    if in_place and is_clean(project, folder.name):
        return []
    checked = screened(project, folder)
    if checked is None:
        return []
    suspected = [f"suspected: {line}" for line in checked.lines("suspected")]
    if not checked.certain:
        if in_place:
            _note_clean(project, folder.name)
        return suspected
    lines = list(checked.lines("certain"))
    if policy == "refuse":
        raise MeguError(
            f"data/{folder.name} has {checked.certain:,} images that were erased ({'; '.join(lines)})",
            "set data.suppressed=drop to leave them out"
            + ("; `megu purge --apply` erases them again" if in_place else "")
            + "; `megu suppress list` says more",
        )
    if more := advice.strays(folder):
        raise MeguError(advice.beside(folder.name, more), f"move them out of data/{folder.name}, and run again")
    gone = {split: matches.certain >= 0 for split, matches in checked.found.items()}
    with atomic_folder(folder) as new:
        erasing.write_without(checked.dataset, gone, new)
        if in_place and (pin := pins.read(project.root).get(folder.name)):
            before, after = pins.hash_dir(folder, project.root), pins.hash_dir(new)
            if pin.md5 not in (before.md5, after.md5):
                raise MeguError(*advice.difference(project.root, folder.name, pin, before))
            # Pinned before the new version is in its place: if killed between the two, the next run finds the images again.
            pins.write(project.root, folder.name, after)
    if in_place:
        _note_clean(project, folder.name)
    return [*(f"left out: {line}" for line in lines), *suspected]


def is_clean(project: Project, name: str) -> bool:
    """Return whether a data set in its place is known to hold nothing erased: screened since it or the list last changed, or without a list."""
    seen = _looked_at(project, name)
    return seen is None or _noted(_memo(project)).get(name) == seen


def _note_clean(project: Project, name: str) -> None:
    with writing(_memo(project)) as temporary:
        temporary.write_bytes(canonical_json({**_noted(_memo(project)), name: _looked_at(project, name)}))


def _looked_at(project: Project, name: str) -> list[str] | None:
    """Return the version of the data and of the list; None without a list, or without the data."""
    state, folder = Suppressions(project).state, project.data(name)
    return [pins.hash_dir(folder, project.root).md5, state] if state and (folder / "meta.json").is_file() else None


def _memo(project: Project) -> Path:
    return Suppressions(project).root / "clean.json"


def _noted(path: Path) -> dict[str, list[str]]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _name(dataset: Dataset, split: str, at: int) -> str:
    names = getattr(dataset, split).names
    return shown(f"{split}/{names[at].decode()}") if names is not None else f"{split} image {at:,}"
