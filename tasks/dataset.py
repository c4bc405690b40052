"""The data set under ``data/``, compared with its pin in ``data.dvc``; and its duplicate images."""

from __future__ import annotations

from functools import partial

from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.data import arrays, pins
from megu.data.arrays import Dataset
from megu.data.images import duplicates
from megu.data.params import DataParams, Suppressed
from megu.data.sources import providers
from megu.suppression import screening
from tasks.run import cached


def fetch(project: Project, name: str, per_class: int | None, pin: str | None, suppressed: Suppressed) -> Outcome:
    """per_class: how many training images of each class later stages see (`megu.data.arrays.limited`). suppressed: how to treat images
    that were erased (`megu.suppression`).
    """
    fetched = providers.fetch(project.root, name, screen=partial(screening.screen, project, suppressed))
    for line in fetched.notes:
        stages().note(f"{name}: {line}")
    loaded = arrays.limited(arrays.load(fetched.dataset_path), per_class)
    return Outcome(
        values={
            "name": name,
            "dvc_hash": fetched.dvc_hash,
            "classes": list(loaded.classes),
            "source": loaded.source,
            "licence": loaded.licence,
            **({} if per_class is None else {"per_class": per_class}),
        },
        notes={
            "provider": fetched.provider,
            "pin": fetched.pin,
            "train_images": len(loaded.train),
            "test_images": len(loaded.test),
        },
    )


def brought(project: Project, params: DataParams) -> Dataset:
    """Return the data set that requests are looked up in; fetch it if it is not here."""
    fetched = providers.fetch(project.root, params.name, screen=partial(screening.screen, project, params.suppressed))
    return arrays.limited(arrays.load(fetched.dataset_path), params.per_class)


def still_there(project: Project, result: Result) -> bool:
    """Whether it is unchanged, and contains nothing that was erased since, which an earlier version may bring back."""
    folder = project.data(result.values["name"])
    same = folder.is_dir() and pins.hash_dir(folder, project.root).md5 == result.values["dvc_hash"]
    return same and screening.is_clean(project, result.values["name"])


def say_dataset(result: Result) -> str:
    pin = "as pinned" if result.notes["pin"] == "match" else "not pinned"
    limit = f" (at most {result.values['per_class']:,} a class)" if "per_class" in result.values else ""
    return f"{result.values['name']}: {result.notes['train_images']:,}{limit} + {result.notes['test_images']:,} images, {pin}"


def find_duplicates(project: Project, data: Result) -> Outcome:
    """Find the groups of equal or almost equal images, independently of any request: they serve every later one."""
    loaded = cached.dataset(project, data)
    groups = duplicates.groups(loaded)
    kinds = {kind: len(found) for kind, found in duplicates.in_kinds(loaded, groups).items()}
    return Outcome(
        files={"groups": project.store.put_arrays({"groups": groups})},
        values={"images": int((groups >= 0).sum()), "kinds": kinds},
    )


def say_duplicates(result: Result) -> str:
    kinds = "".join(f", {count:,} {kind}" for kind, count in result.values["kinds"].items() if count)
    return f"{result.values['images']:,} images have a copy, equal or almost{kinds}"


DUPLICATES = Stage("duplicates", "Find images that are almost the same", find_duplicates, say_duplicates)
DATASET = Stage("dataset", "Fetch the data set and compare it with its pin", fetch, say_dataset, still_there)
