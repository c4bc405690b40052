"""Small projects by hand to erase from, in every arrangement of DVC's cache: nothing is trained, but a purge sees all that a run leaves.

Which files hold forgotten samples, and which may vanish, is written down while they are made, not asked of the purge.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cryptography.hazmat.primitives import serialization as form
from dossier_fixtures import RUN, SECRET, SIGNING, dossier, records
from lineage_fixtures import git
from PIL import Image
from purge_fixtures import encoded, garments
from small_mlflow import tracked

from megu.core.project import Project
from megu.core.stages import Result
from megu.data import arrays, pins
from megu.data.arrays import Columns, Facts
from megu.data.images.decoding import brought_to
from megu.lineage import dossier as folder_of
from megu.lineage.commitments import commit_all
from megu.lineage.dossier import FORGOTTEN, sha256
from megu.lineage.index import Index, Row
from megu.lineage.record import to_lines

CLASSES = ("Boot", "Coat", "Dress")
FINE = tuple(f"{name} {kind}" for name in CLASSES for kind in ("red", "blue"))
SCENARIOS = ("class", "subclass", "random", "ids", "mixed")
CACHES = ("copy", "hardlink", "symlink")
#: Where the cache is: in the project; elsewhere, for this project alone; elsewhere, with another project that has the same data.
PLACES = ("inside", "outside", "shared")
#: Whether data set "d" has the pictures of "a" in another size; then, which of them has the size of the files that both were packed from.
#: Of "neither" nobody can be certain: rows of "d" are suspected.
RESIZED = ("", "a", "d", "neither")
#: Height and width of "d". The last has another shape than "a", and is only drawn where "a" has the files' size: nobody can tell two shapes
#: cut out of files that are in neither.
SIZES = ((8, 8), (12, 12), (24, 24), (32, 32), (24, 16))
#: Height and width of "a", and the side of files that are in neither.
SIZE, FILES = (16, 16), 96
OLDER = "fedcba9876543210fedcba9876543210"


@dataclass
class Small:
    """A project, and what it was made of.

    gone: data set -> split -> positions that are to go. images: all of them, (H, W, C) each, resized copies included where these are to go.
    ids: theirs, as text.
    may_go: files that a purge may remove because they belong to the samples; what of it is megu's own has to go. versions: registered
    ones that have to. other: another project that uses the same cache, or None.
    """

    project: Project
    gone: dict[str, dict[str, list[int]]]
    images: list[Any]
    ids: set[str]
    may_go: set[Path] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    other: Path | None = None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def roots(self) -> list[Path]:
        """Every folder that may have something of it."""
        return [self.project.root.parent]


def data_set(
    project: Project, name: str, images: Mapping[str, Any], labels: Mapping[str, Any], names: Mapping[str, Iterable[str]] | None
) -> None:
    columns = {
        split: Columns(np.asarray(labels[split]) // 2, np.asarray(labels[split]), list(names[split]) if names else None)
        for split in arrays.SPLITS
    }
    arrays.save_columns(project.data(name), Facts(name, CLASSES, fine=FINE, source="made up"), images, columns)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def put(cache: Path, name: str, content: bytes) -> Path:
    """An object as DVC keeps it: read-only."""
    path = cache / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(content)
        path.chmod(0o444)
    return path


def commit_to(cache: Path, folder: Path, link: str) -> pins.DirHash:
    """``dvc commit`` of a folder: objects, the listing, and the files of the folder as links of a kind."""
    listing = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = md5(path)
        listing.append({"md5": name, "relpath": path.relative_to(folder).as_posix()})
        stored = put(cache, name, path.read_bytes())
        if link != "copy":
            path.unlink()
            path.hardlink_to(stored) if link == "hardlink" else path.symlink_to(stored)
    found = pins.hash_dir(folder)
    put(cache, found.md5, json.dumps(listing, sort_keys=True).encode())
    return found


def keys(project: Project) -> None:
    project.keys.mkdir(parents=True, exist_ok=True)
    (project.keys / "commitments.key").write_bytes(SECRET.hex().encode())
    private = SIGNING.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (project.keys / "signing.pem").write_bytes(private)
    public = SIGNING.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (project.keys / "signing.pub").write_bytes(public)


def recorded(
    project: Project, forgotten: bytes, data: pins.DirHash, request: Mapping[str, Any], models: Mapping[str, str]
) -> None:
    """The dossier of the run that forgot, and its row in the index, with one of an older run that did not."""
    trained = commit_all(SECRET, [bytes(value) for value in arrays.load(project.data("a")).train.ids])
    made = dossier(
        run={"mlflow_run_id": RUN, "created": "2026-01-01T00:00:00+00:00"},
        request=request,
        files={FORGOTTEN: sha256(forgotten)},
        data={"name": "a", "dvc_hash": data.md5, "size": data.size, "nfiles": data.nfiles},
        models={name: models[name] for name in ("original", "unlearned")},
    )
    folder = project.dossiers / RUN
    folder.mkdir(parents=True)
    for name, content in folder_of.sealed(made, to_lines(records()), forgotten, SIGNING).items():
        (folder / name).write_bytes(content)
    index = Index(project.index)
    known, own, none = index.put(trained), index.put(forgotten), index.put(b"")
    row = {
        "seal": "s",
        "created": "2026-01-01T00:00:00+00:00",
        "model": "",
        "request": "x",
        "method": "megu",
        "data": data.md5,
        "trained": known,
        "original": models["original"],
        "given": 0,
        "key": made.scope.key,
    }
    index.add(
        [
            Row(run_id=RUN, forgotten=own, unlearned=models["unlearned"], **row),
            Row(run_id=OLDER, forgotten=none, unlearned=models["older"], **row),
        ]
    )
    project.ledger.append("request.received", "r1", {"due": "2026-02-01"})


def stored(project: Project, data: pins.DirHash, chance: random.Random) -> tuple[dict[str, str], set[Path]]:
    """What stages left in the content store: SHA-256 of models by name, and the files that belong to the samples."""
    split = records()[1].result_digest
    origin = {"created": "2026-01-01T00:00:00+00:00"}
    results = {"data": Result("dataset", {}, {}, {"name": "a", "dvc_hash": data.md5}, {}, 1.0, origin)}
    inputs = {"input data": results["data"].digest, "input split": split}
    made = {
        "original": ("original", "weights", {}),
        "unlearned": ("unlearn", "weights", {}),
        "older": ("unlearn", "weights", {"input split": "another"}),
        "retrain": ("reference", "weights", {}),
        "predictions": ("predictions", "predictions", {}),
        "condensed": ("condensed", "condensed", {}),
        "distributions": ("evaluation", "distributions", {}),
        "matrix": ("entanglement", "matrix", {}),
    }
    models, may_go = {}, set()
    for name, (stage, file, more) in made.items():
        ref = project.store.put_arrays({name: np.frombuffer(chance.randbytes(64), dtype=np.uint8)})
        models[name] = ref.sha256
        results[name] = Result(stage, {**inputs, **more}, {file: ref}, {}, {}, 1.0, origin)
        if name in ("original", "older", "predictions", "condensed", "distributions"):
            may_go |= {project.store.path(ref), project.results / name}
    project.results.mkdir(parents=True)
    for name, result in results.items():
        (project.results / name).write_text(json.dumps({"result": json.dumps(result.to_json())}))
    return models, may_go


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def derived(project: Project, image: Any, identifier: str, kept: Any) -> set[Path]:
    """What runs leave of a sample all over the project, beside the same of one that is kept; returns what belongs to the sample."""
    home = project.home
    with sqlite3.connect(written(home / "prefect" / "prefect.db", b"")) as opened:
        opened.execute("CREATE TABLE flow_run (parameters JSON, number INTEGER)")
        rows = [(json.dumps({"forget.ids": [identifier]}), 1), (json.dumps({"settings": ["seed=1"] * 9}), 2)]
        opened.executemany("INSERT INTO flow_run VALUES (?, ?)", rows)
    written(project.root / "results" / "kept.png", encoded(kept))
    written(home / "answers" / "kept.jsonl", json.dumps({"question": arrays.image_ids(kept[None])[0].decode()}))
    return {
        written(home / "mlartifacts" / "figure.png", encoded(image)),
        written(home / "answers" / "asked.jsonl", json.dumps({"ids": [identifier]})),
        written(home / "checkpoints" / "shadow.safetensors", b"in training" + bytes(40)),
        written(project.root / "results" / "page.html", b"<html>" + encoded(image, "JPEG", quality=95)),
        written(home / "store" / "aa" / f"{'a' * 64}.png", encoded(image)),
        written(home / "requests" / "q.json", json.dumps({"ids": [identifier]})),
    }


def make(
    root: Path,
    *,
    seed: int = 0,
    scenario: str = "ids",
    link: str = "copy",
    place: str = "inside",
    sets: int = 2,
    names: bool = True,
    remote: str = "",
    committed: bool = False,
    equal_splits: bool = False,
    mlflow: str = "",
    archives: bool = False,
    resized: str = "",
    size: tuple[int, int] = (8, 8),
) -> Small:
    """A project below ``root``.

    sets: "b" has the labels and names of "a" and other images of its size, "c" other images of another size. resized: there is "d" as well,
    with the labels, names and pictures of "a" in another size; one of `RESIZED`. size: (height, width) of "d"; a square, unless resized
    is "a". remote: "", "inside" or "outside". equal_splits: the test split has the labels of the training split. mlflow: "", "superseded"
    or "in service": what the model is that was trained on them. archives: the user's own, some with a file that cannot be read.
    """
    chance = random.Random(seed)
    project = Project((root / "project").resolve())
    project.root.mkdir(parents=True)
    (project.root / "params.yaml").write_text("seed: 0\n")
    keys(project)
    count = {"train": 18, "test": 18 if equal_splits else 12}
    labels = {split: np.arange(number) % len(FINE) for split, number in count.items()}
    called = {split: [f"{FINE[k % 6]}/{k:03}" for k in range(number)] for split, number in count.items()} if names else None
    sides = {"a": {"d": size[0], "neither": FILES}.get(resized, SIZE[0]), "b": SIZE[0], "c": 20}
    images = {
        name: garments(36 if equal_splits else 30, 3 if name == "c" else 1, seed * 10 + number, sides[name])
        for number, name in enumerate("abc"[:sets])
    }
    if resized:
        images |= {"a": in_size(images["a"], SIZE), "d": in_size(images["a"], size)}
    for name, pixels in images.items():
        data_set(project, name, {"train": pixels[:18], "test": pixels[18 : 18 + count["test"]]}, labels, called)
    small = chosen(project, scenario, labels, chance)
    if resized:
        copied(small, certain=resized != "neither")
    link_all(small, root, link, place, remote)
    data = pins.hash_dir(project.data("a"))
    models, may_go = stored(project, data, chance)
    small.may_go |= may_go | derived(
        project, small.images[0], sorted(small.ids)[0], arrays.load(project.data("a")).train.images[17]
    )
    if mlflow:
        in_service = mlflow == "in service"
        alias = {"3": "champion"} | ({"1": "challenger"} if in_service else {})
        small.may_go |= tracked(project, RUN, models, sorted(small.ids)[0], alias)
        small.versions = {"2"} if in_service else {"1", "2"}
        if in_service:
            small.may_go -= {
                path for path in small.may_go if path.parent.name == "m-1" or path.stem in (models["original"], "original")
            }
    if archives:
        packed(project, small.images[0], arrays.load(project.data("a")).train.images[17])
    request = {"words": scenario, "scenario": scenario, "classes": small.said["classes"], "subclasses": [], "count": 1}
    request |= {"ids": [], "files": []}
    forgotten = commit_all(SECRET, [identifier.encode() for identifier in small.said["train"]])
    recorded(project, forgotten, data, request, models)
    if committed:
        (project.root / ".gitignore").write_text("/.megu/\n/data/\n/results/\n.dvc/cache\n/remote\n")
        git(project.root, "init", "-q")
        git(project.root, "add", "-A")
        git(project.root, "commit", "-qm", "data")
    return small


def in_size(images: Any, size: tuple[int, int]) -> Any:
    """Grey images (n, h, w, 1) as ``megu data add --size`` packs files of them: with the code that packs, not with what a purge looks by."""
    return np.stack([np.asarray(brought_to(Image.fromarray(image[..., 0]), size))[..., None] for image in images])


def copied(small: Small, *, certain: bool) -> None:
    """What of "d" is to go with the rows of "a"; and such rows as an array and a picture, the user's and megu's own, beside one that is kept.

    certain: whether the purge can know. Else the rows may only be named, and their ids, which nobody asked to forget, stay with them.
    """
    project, gone = small.project, small.gone["a"]
    dataset = arrays.load(project.data("d"))
    at = [(getattr(dataset, split), row) for split in arrays.SPLITS for row in gone[split]]
    rows, kept = [np.asarray(part.images[row]) for part, row in at], dataset.train.images[17]
    array = io.BytesIO()
    np.savez_compressed(array, images=np.stack([*rows, kept]))
    own = project.home / "mlartifacts"
    for folder in (project.root / "mine", own):
        written(folder / "resized.npz", array.getvalue())
        written(folder / "resized.png", encoded(rows[0]))
    written(own / "resized_kept.png", encoded(kept))
    if certain:
        small.gone["d"] = gone
        small.images += rows
        small.ids |= {bytes(part.ids[row]).decode() for part, row in at}
        small.may_go |= {own / "resized.npz", own / "resized.png"}


def packed(project: Project, image: Any, kept: Any) -> None:
    """Archives: whole, with a file that is damaged, with one that is encrypted, each with an image that is forgotten and one that is not."""

    def archive(images: Iterable[Any]) -> bytearray:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as opened:
            for number, each in enumerate(images):
                opened.writestr(f"{number}.png", encoded(each))
        return bytearray(content.getvalue())

    broken, secret = archive([image, kept]), archive([kept, image])
    broken[broken.index(b"IDAT") + 20] ^= 1
    first = secret.index(b"PK\x01\x02")
    secret[6] |= 1  # of the first file, in its header and in the list of all
    secret[first + 8] |= 1
    for name, content in {"whole": archive([image]), "broken": broken, "secret": secret, "kept": archive([kept])}.items():
        written(project.root / "mine" / f"{name}.zip", bytes(content))
    with tarfile.open(project.root / "mine" / "all.tar.gz", "w:gz") as tar:
        tar.add(project.root / "mine" / "broken.zip", "broken.zip")


def chosen(project: Project, scenario: str, labels: Mapping[str, Any], chance: random.Random) -> Small:
    """Which rows are to go: the last training image is never among them."""
    dataset = arrays.load(project.data("a"))
    named = {"class": [CLASSES[1]], "subclass": [FINE[3]], "mixed": [CLASSES[0]]}.get(scenario, [])
    train = sorted(chance.sample(range(17), chance.choice((1, 1, 3, 5))))
    test: list[int] = []
    if named:
        known = FINE if scenario == "subclass" else CLASSES
        of = {split: labels[split] if scenario == "subclass" else labels[split] // 2 for split in labels}
        whole, test = (np.flatnonzero(of[split] == known.index(named[0])).tolist() for split in ("train", "test"))
        train = sorted({*train, *whole}) if scenario == "mixed" else whole
    gone = {"a": {"train": train, "test": test}}
    parts = [(dataset.train, train), (dataset.test, test)]
    images = [np.asarray(part.images[at]) for part, rows in parts for at in rows]
    ids = {bytes(part.ids[at]).decode() for part, rows in parts for at in rows}
    small = Small(project, gone, images, ids)
    small.said = {"classes": named, "train": [bytes(dataset.train.ids[at]).decode() for at in train]}
    return small


def link_all(small: Small, root: Path, link: str, place: str, remote: str) -> None:
    """Put the data sets into DVC's cache and remote, pin them, and write down what belongs to the samples there."""
    project = small.project
    names = [path.name for path in sorted(project.data("").iterdir())]
    cache = {"inside": project.root / ".dvc" / "cache"}.get(place, root / "cache")
    away = {"inside": project.root / "remote", "outside": root / "remote"}.get(remote)
    if place == "shared":
        small.other = root / "other"
        shutil.copytree(project.root / "data", small.other / "data")
        for name in names:
            commit_to(cache, small.other / "data" / name, link)
    old = {name: {path.name: md5(path) for path in project.data(name).iterdir()} for name in small.gone}
    outs = []
    for name in names:
        found = commit_to(cache, project.data(name), link)
        outs.append({"md5": found.md5, "size": found.size, "nfiles": found.nfiles, "hash": "md5", "path": f"data/{name}"})
    (project.root / "data.dvc").write_text(yaml.safe_dump({"outs": outs}, sort_keys=False))
    lines = [] if place == "inside" else ["[cache]", f"    dir = {os.path.relpath(cache, project.root / '.dvc')}"]
    if away is not None:
        shutil.copytree(cache, away)
        lines += ["['remote \"near\"']", f"    url = {os.path.relpath(away, project.root / '.dvc')}"]
    written(project.root / ".dvc" / "config", "\n".join(lines) + "\n")
    listings = {Path(out["path"]).name: out["md5"] for out in outs}
    for store in filter(None, (cache, away)):
        for name, gone in small.gone.items():
            splits = [split for split in arrays.SPLITS if gone[split]]
            objects = [f"{split}_{kind}.npy" for split in splits for kind in ("images", "ids")]
            if names == list(small.gone):  # nothing else has the same labels and names
                objects = [file for file in old[name] if file.split("_")[0] in splits]
            small.may_go |= {put(store, old[name][file], b"") for file in (*objects, "meta.json")}
            small.may_go.add(put(store, listings[name], b""))


def draw(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the ``number``-th project is made of, and a policy. The first nine have every kind of link in every place; all else is drawn."""
    chance = random.Random(number)
    settings = {
        "link": CACHES[number % 3] if number < 9 else chance.choice(CACHES),
        "place": PLACES[number // 3] if number < 9 else chance.choice(PLACES),
        "scenario": SCENARIOS[number % len(SCENARIOS)],
        "sets": chance.choice((1, 2, 2, 3)),
        "names": chance.random() < 0.7,
        "remote": chance.choice(("", "inside", "outside")),
        "committed": chance.random() < 0.5,
        "equal_splits": chance.random() < 0.3,
        "mlflow": chance.choice(("", "superseded", "in service")),
        "archives": chance.random() < 0.3,
    }
    policy = {"models_days": 0, "shared_stores": settings["place"] == "outside" and chance.random() < 0.5}
    # Drawn last: all else of a project is what it was before data sets had copies in another size.
    settings["resized"] = chance.choice(("", *RESIZED))
    if settings["resized"]:
        settings["size"] = chance.choice(SIZES if settings["resized"] == "a" else SIZES[:-1])
    return settings, policy


def drawn(root: Path, number: int) -> tuple[Small, dict[str, Any]]:
    """The project of `draw`, made below ``root``, and its policy."""
    settings, policy = draw(number)
    small = make(root, seed=number, **settings)
    small.said["settings"] = settings | {"shared_stores": policy["shared_stores"]}
    return small, policy
