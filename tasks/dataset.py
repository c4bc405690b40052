"""The data set under ``data/``, compared with its pin in ``data.dvc``."""

from __future__ import annotations

from megu.data import arrays, pins, providers
from megu.project import Project
from megu.stages import Outcome, Result, Stage


def fetch(project: Project, name: str, pin: str | None) -> Outcome:
    fetched = providers.fetch(project.root, name)
    loaded = arrays.load(fetched.dataset_path)
    return Outcome(
        values={
            "name": name,
            "dvc_hash": fetched.dvc_hash,
            "classes": list(loaded.classes),
            "source": loaded.source,
            "licence": loaded.licence,
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
    return f"{result.values['name']}: {result.notes['train_images']:,} + {result.notes['test_images']:,} images, {pin}"


DATASET = Stage("dataset", "Fetch the data set and compare it with its pin", fetch, say_dataset, still_there)
