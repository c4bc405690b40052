"""The probes of a promotion: the test images that distinguish the champion from the version before it, and the answers of both.

They are drawn from the test set alone, with the dossier's seal as the seed. What either version was to forget is left out, so that no
question is about erased data; of the rest, the images on which the two versions differ most are used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.files.exclusion import working
from megu.core.files.ledger import Event
from megu.core.files.store import writing
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import Dataset
from megu.data.scope import RequestScope
from megu.lineage.commitments import commit, fingerprint
from megu.lineage.dossier import FORGOTTEN, Dossier, sha256
from megu.lineage.index import Index
from megu.lineage.keys import Keys
from megu.lineage.promoted import probes
from megu.lineage.promoted.probes import MADE, ORIGINAL, Probes
from megu.lineage.reading import Found, dossier_of

#: How many test images both versions answer, and how many of these are kept as probes.
DRAWN, KEPT = 256, 8
_DIGITS = 6

Answers = NDArray[np.float32]


@dataclass(frozen=True)
class _Asked:
    """The questions for every version: images uint8 (N, H, W, C) of a data set."""

    dataset: Dataset
    images: NDArray[np.uint8]


def ensure(project: Project, move: Event) -> Probes:
    """Return the probes of a move of the champion; if there are none yet, make them, which needs torch and the weights of both versions.

    Raises `MeguError` when they cannot be made: the data set, the key or the champion's weights are not here.
    """
    name, facts = move.subject, move.facts
    if event := probes.made_for(project.ledger.events(name), move):
        return probes.read(project, event)
    with working(project):
        found = dossier_of(f"models:/{name}/{facts['version']}", project)
        run = found.dossier.run.mlflow_run_id
        if not (project.dossiers / run).is_dir():
            raise MeguError(f"the dossier of models:/{name}/{facts['version']} is not here", "bring back results/dossiers")
        made = _make(project, found, move)
        content = made.to_bytes()
        with writing(project.dossiers / run / probes.file_name(content)) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)  # as the dossier's own files
        told = {"event": move.number, "version": facts["version"], "run_id": run, "sha256": sha256(content)}
        project.ledger.append(MADE, name, told)
    return made


def images_of(project: Project, made: Probes) -> tuple[list[int], NDArray[np.uint8]]:
    """Return the probes that the data set still has: their numbers, and their pixels uint8 (N, H, W, C).

    Raises `MeguError` when the data set or the key is not here, or none of them is left.
    """
    key, dataset = _key(project), _dataset(project, made.data)
    if fingerprint(key) != made.key:
        raise MeguError("the probes were made under another key", "put that key back into .megu/keys/commitments.key")
    at = {commit(key, bytes(value)).hex(): number for number, value in enumerate(dataset.test.ids)}
    numbers = [number for number, sample in enumerate(made.samples) if sample in at]
    if not numbers:
        raise MeguError(f"data/{made.data} no longer has any of the probes", "the next promotion makes new ones")
    return numbers, np.asarray(dataset.test.images[[at[made.samples[number]] for number in numbers]])


def allowed(dataset: Dataset, key: bytes, dossiers: Sequence[Dossier], forgotten: frozenset[bytes]) -> NDArray[np.intp]:
    """Return the positions of the test images that may be probes. dossiers: whose classes are excluded. forgotten: excluded commitments."""
    labels, fine, names = dataset.test.labels, dataset.test.fine, dataset.fine or ()
    out = np.array([commit(key, bytes(value)) in forgotten for value in dataset.test.ids], dtype=bool)
    for scope in (RequestScope.of(dossier.request) for dossier in dossiers):
        out |= np.isin(labels, [number for number, name in enumerate(dataset.classes) if name in scope.classes])
        if fine is not None:
            out |= np.isin(fine, [number for number, name in enumerate(names) if name in scope.subclasses])
    return np.flatnonzero(~out)


def telling(champion: Answers, other: Answers | None, count: int = KEPT) -> NDArray[np.intp]:
    """Return the rows, at most ``count``, on which two versions' probabilities (N, K) differ most; the first ones without a second."""
    if other is None:
        return np.arange(min(count, len(champion)))
    apart = np.abs(champion - other).max(axis=1)
    return np.argsort(-apart, kind="stable")[:count]


def _make(project: Project, found: Found, move: Event) -> Probes:
    name, version, before = move.subject, str(move.facts["version"]), move.facts.get("from")
    key, dataset = _key(project), _dataset(project, found.dossier.data.name)
    earlier = dossier_of(f"models:/{name}/{before}", project).dossier if before else None
    alike = earlier is None or earlier.data.name == dataset.name
    dossiers = [found.dossier, *([earlier] if earlier and alike else [])]
    index = Index(project.index)
    forgotten = frozenset().union(*(index.entries(dossier.files[FORGOTTEN]) for dossier in dossiers))
    positions = allowed(dataset, key, dossiers, forgotten)
    if not len(positions):
        raise MeguError(f"data/{dataset.name} has no test image besides those of what was forgotten", "nothing is to be done")
    at = np.sort(np.random.default_rng(int(found.seal.seal[:16], 16)).permutation(positions)[:DRAWN])
    asked = _Asked(dataset, np.asarray(dataset.test.images[at]))
    champion = _registered(project, f"models:/{name}/{version}", asked)
    other = _of_before(project, found, f"models:/{name}/{before}" if before else None, asked) if alike else None
    rows = telling(champion, other)
    return Probes(
        format=probes.FORMAT,
        model=name,
        version=version,
        before="" if other is None else str(before or ORIGINAL),
        data=dataset.name,
        key=fingerprint(key),
        samples=[commit(key, bytes(value)).hex() for value in dataset.test.ids[at[rows]]],
        champion=_rounded(champion[rows]),
        other=[] if other is None else _rounded(other[rows]),
    )


def _of_before(project: Project, found: Found, before: str | None, asked: _Asked) -> Answers | None:
    """Return the answers of the version before, or of the original that the first champion came from; None where its weights are gone."""
    if before is None:
        weights = project.store.find("safetensors", found.dossier.models.original)
        return _answers(project.store.path(weights), asked) if weights else None
    try:
        return _registered(project, before, asked)
    except MeguError:
        return None


def _registered(project: Project, version: str, asked: _Asked) -> Answers:
    """Return a registered version's answers, computed from its weights: none of its code is run."""
    from megu import tracking

    with tempfile.TemporaryDirectory() as folder:
        return _answers(tracking.fetch_model(version, Path(folder), home=project.home, asked="the probes"), asked)


def _answers(weights: Path, asked: _Asked) -> Answers:
    """Answer as the served model does, float32 (N, K)."""
    from megu.tracking import served
    from megu.training.weights import load_model

    scale = {"mean": asked.dataset.mean, "std": asked.dataset.std}
    try:
        return served.answer(load_model(weights)[0], scale, asked.images)
    except RuntimeError as error:  # torch's: made for other images
        why = " ".join(str(error).split())[:100]
        raise MeguError(f"a version does not run on data/{asked.dataset.name} ({why})", "see `megu verify`") from None


def _rounded(answers: Answers) -> list[list[float]]:
    return [[round(float(value), _DIGITS) for value in row] for row in answers]


def _key(project: Project) -> bytes:
    key = Keys(project.keys).commitment_key()
    if key is None:
        raise MeguError("the key of the commitments is not here", "put it back into .megu/keys/commitments.key")
    return key


def _dataset(project: Project, name: str) -> Dataset:
    if not (project.data(name) / "meta.json").is_file():
        raise MeguError(f"data/{name} is not here", f"bring it back (`megu data fetch {name}`, or DVC)")
    return arrays.load(project.data(name))
