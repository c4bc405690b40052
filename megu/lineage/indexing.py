"""Index rows built from dossiers, and look-ups of samples by id, image or name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import commit_all, fingerprint
from megu.lineage.dossier import FORGOTTEN, MAIN, SEAL, Dossier
from megu.lineage.index import Answer, Index, Row
from megu.lineage.keys import Keys


def row_of(dossier: Dossier, seal: str, trained: str) -> Row:
    """Return a dossier's row. trained: the name of the set of all training images."""
    version = dossier.tracked.version
    return Row(
        run_id=dossier.run.mlflow_run_id,
        seal=seal,
        created=dossier.run.created,
        model=f"models:/{version['name']}/{version['version']}" if version else "",
        request=str(dossier.request["words"]),
        method=str(dossier.method["name"]),
        data=dossier.data.dvc_hash,
        trained=trained,
        forgotten=dossier.files[FORGOTTEN],
        original=dossier.models.original,
        unlearned=dossier.models.unlearned,
        given=int(dossier.models.given),
        key=dossier.scope.key,
    )


def add(project: Project, dossier: Dossier, seal: str, forgotten: bytes) -> None:
    """Add a run to the index. If the index does not have its data set yet, the data set, or what a purge left of it, must be here.

    Raises `MeguError` when it is not.
    """
    index, key = Index(project.index), Keys(project.keys).commitment_key()
    if key is None or fingerprint(key) != dossier.scope.key:
        raise MeguError("the key of its commitments is not here", "put it back into .megu/keys/commitments.key")

    def make() -> bytes:
        from megu.data import pins
        from megu.lineage.purged import erasures
        from megu.lineage.verify.run import own_key

        folder = project.data(dossier.data.name)
        now, loaded = pins.hash_dir(folder, project.root), arrays.limited(arrays.load(folder), dossier.per_class)
        ids = loaded.train.ids
        purged = erasures.load(project, {}, own_key(project), dossier.run.mlflow_run_id, True).data(dossier.data.dvc_hash)
        if purged and loaded.limit is not None:
            raise MeguError(
                "it saw only part of its data set, and nobody can tell any more which of the erased images were in that part",
                "put .megu/lineage back from a backup",
            )
        if purged and purged[-1].after == vars(now) and erasures.makes_up(key, ids, purged):
            return erasures.before(key, ids, purged)
        if now.md5 != dossier.data.dvc_hash:
            raise MeguError(f"data/{dossier.data.name} is a different version now", "bring that version back with DVC")
        return commit_all(key, (bytes(value) for value in ids))

    index.put(forgotten)
    view = dossier.data.dvc_hash + ("" if dossier.per_class is None else f" per_class={dossier.per_class}")
    index.add([row_of(dossier, seal, index.trained(view, dossier.scope.key, make))])


def rebuild(project: Project) -> tuple[int, list[str]]:
    """Rebuild the rows of every dossier of the project. Return how many, and what could not be indexed and why."""
    done, problems = 0, []
    for folder in sorted(project.dossiers.glob("*")) if project.dossiers.is_dir() else []:
        try:
            files = folder_of.read(folder)
            add(project, folder_of.parse(files[MAIN], MAIN), folder_of.parse_seal(files[SEAL], SEAL).seal, files[FORGOTTEN])
            done += 1
        except (MeguError, KeyError, OSError) as error:
            problems.append(f"{folder.name}: {error.what if isinstance(error, MeguError) else error!r}")
    return done, problems


def which(project: Project, sample: str) -> tuple[list[str], list[Answer]]:
    """Return the ids that ``sample`` may mean and, for every recorded run, what its models have to do with it.

    sample: an id (32 hex characters), an image file, or an image's name in a data set that came as files. An image file may have
    different ids in data sets of different sizes; a run that saw any of them saw it.

    Raises `MeguError` when nothing is recorded, or the sample cannot be understood.
    """
    key, index = Keys(project.keys).commitment_key(), Index(project.index)
    if key is None or not index.rows():
        raise MeguError("no run has been recorded yet", "`megu run` records one; `megu lineage index` reads dossiers again")
    if any(row.key != fingerprint(key) for row in index.rows()):
        raise MeguError("some runs were recorded under a different key", "put that key back into .megu/keys/commitments.key")
    ids = ids_of(project, sample)
    found = [index.which(key, identifier.encode()) for identifier in ids]
    return ids, [max(answers, key=_closest) for answers in zip(*found, strict=True)]


def _closest(answer: Answer) -> tuple[bool, bool]:
    return answer.unlearned != "never saw", answer.original == "trained"


def ids_of(project: Project, sample: str) -> list[str]:
    """Return the ids that a sample may mean; see `which`. Raises `MeguError` when there is no such sample."""
    if re.fullmatch(r"[0-9a-f]{32}", sample):
        return [sample]
    folders = [path.parent for path in sorted(project.root.glob("data/*/meta.json"))]
    path = Path(sample)
    found = list(dict.fromkeys(_in_image(path, folders) if path.is_file() else _by_name(sample, folders)))
    if not found:
        raise MeguError(
            f"{sample} is not a sample id, an image file, or the name of an image in a data set here",
            "give 32 hex characters, an image file, or class/file as the images were added; an erased sample no longer has a name",
        )
    return found


def _in_image(path: Path, folders: list[Path]) -> Iterator[str]:
    """Yield the id of an image, brought to the form of each data set here."""
    import numpy as np

    from megu.data.images.decoding import decoded

    for folder in folders:
        dataset = arrays.load(folder)
        pixels = decoded(path, dataset.image_size)
        if pixels.shape[2] < dataset.channels:
            pixels = np.repeat(pixels, dataset.channels, axis=2)
        if pixels.shape[2] == dataset.channels:
            yield arrays.image_ids(pixels[None])[0].decode()


def _by_name(name: str, folders: list[Path]) -> Iterator[str]:
    from megu.data.splits import ids_of_files

    for folder in folders:
        dataset = arrays.load(folder)
        if dataset.train.names is not None:
            try:
                yield from ids_of_files(dataset, [name])
            except MeguError:
                continue
