"""The data set under ``data/``, compared with its pin in ``data.dvc``."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.data import arrays, pins
from megu.data.sources import providers


def fetch(project: Project, name: str, per_class: int | None, pin: str | None) -> Outcome:
    """per_class: what later stages see of the training images of each class (`megu.data.arrays.limited`)."""
    fetched = providers.fetch(project.root, name)
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


def still_there(project: Project, result: Result) -> bool:
    folder = project.data(result.values["name"])
    return folder.is_dir() and pins.hash_dir(folder, project.root).md5 == result.values["dvc_hash"]


def say_dataset(result: Result) -> str:
    pin = "as pinned" if result.notes["pin"] == "match" else "not pinned"
    limit = f" (at most {result.values['per_class']:,} a class)" if "per_class" in result.values else ""
    return f"{result.values['name']}: {result.notes['train_images']:,}{limit} + {result.notes['test_images']:,} images, {pin}"


DATASET = Stage("dataset", "Fetch the data set and compare it with its pin", fetch, say_dataset, still_there)
