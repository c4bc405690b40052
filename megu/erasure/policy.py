"""What becomes of what the stages made of the samples: which files have them one by one, which are models trained on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.project import Project
from megu.core.stages import Result
from megu.lineage.commitments import SIZE
from megu.lineage.index import Index
from megu.lineage.record import Record

#: Stage and file: one row a sample of the data set, whatever was forgotten.
PER_SAMPLE = {
    ("predictions", "predictions"): "what a model answers to each image",
    ("condensed", "condensed"): "what a model answers to each image",
    ("perturbing", "perturbing"): "what each forgotten image is taught instead",
    ("evaluation", "distributions"): "confidence and entropy of each image",
    ("shadow", "shadow"): "what a shadow model answers to each image",
}
#: Stage -> a model trained on the whole data set, the forgotten samples among it.
MODELS = {"original": "weights", "given": "weights"}
#: Stage -> a model trained on what a split retains (a given retrain: by its giver's word): it knows the samples unless the split's forget set
#: has them.
RETAINING = {"unlearn": "weights", "reference": "weights", "given-reference": "weights"}
#: What stays of a run, and why. None of it has a sample of its own.
KEPT = (
    "the unlearned model, the retrain, and numbers over many images (entanglement, matrix, noise, metrics, histograms) "
    "are the evidence of the run"
)
KEPT_DOSSIER = (
    "commitments under the project's key, which name nobody without it; destroying .megu/keys/commitments.key ends them too"
)
KEPT_SPLITS = "positions in a version of the data set that is gone; they show nothing and are made anew by the next request"


@dataclass(frozen=True)
class Made:
    """A file that a stage made, of which data set (its DVC hash) and, where the stage needs one, of which split (its result's digest)."""

    stage: str
    name: str
    sha256: str
    data: str
    split: str


def cached_results(project: Project) -> Iterator[tuple[Path, Result]]:
    """Every kept result that can be read, with its file."""
    for path in sorted(project.results.glob("*")) if project.results.is_dir() else []:
        try:
            yield path, Result.from_json(json.loads(json.loads(path.read_bytes())["result"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue


def made(results: Sequence[Result], records: Sequence[tuple[str, Sequence[Record]]]) -> list[Made]:
    """The files of kept results, and of the records of dossiers (each with its data set's hash): a result may be gone and its file not."""
    hashes = {result.digest: str(result.values["dvc_hash"]) for result in results if result.stage == "dataset"}
    found = [
        Made(result.stage, name, ref.sha256, hashes.get(str(result.parts.get("input data")), ""), _split(result.parts))
        for result in results
        for name, ref in result.files.items()
    ]
    for data, chained in records:
        found += [
            Made(record.stage, name, ref.sha256, data, _split(record.parts))
            for record in chained
            for name, ref in record.refs.items()
        ]
    return found


def splits_of(records: Sequence[Record]) -> set[str]:
    """The splits, by their results' digests, that the models of a run were made for."""
    return {_split(record.parts) for record in records if record.stage in RETAINING}


def _split(parts: Mapping[str, Any]) -> str:
    return str(parts.get("input split", ""))


@dataclass(frozen=True)
class Seen:
    """Which data sets and models had the forgotten samples, by the index. data: DVC hashes. models, known: SHA-256 of weights, those that saw
    them and all. runs: MLflow run id -> whether its retain set has some of them. innocent: originals that were trained here, on a part of a
    data set (``data.per_class``) that has none of them."""

    data: frozenset[str]
    models: frozenset[str]
    known: frozenset[str]
    runs: Mapping[str, bool]
    innocent: frozenset[str] = frozenset()


def seen(index: Index, forgotten: frozenset[bytes]) -> Seen:
    """Ask the index of every recorded run: a model has seen a sample that its training set has and its forget set has not, or that the model
    it was made of had seen, which an earlier run may have trained on more than this one."""
    wanted = np.frombuffer(b"".join(sorted(forgotten)), dtype=f"S{SIZE}")
    inside: dict[str, NDArray[np.bool_]] = {}

    def has(name: str) -> NDArray[np.bool_]:
        if name not in inside:
            content = index.path(name).read_bytes() if index.path(name).is_file() else b""
            inside[name] = np.isin(wanted, np.frombuffer(content, dtype=f"S{SIZE}"))
        return inside[name]

    data, models, known, runs = set(), set(), set(), dict[str, bool]()
    made: dict[str, NDArray[np.bool_]] = {}  # by weights, what an unlearned model knows
    for row in index.rows():
        trained, left_out = has(row.trained), has(row.forgotten)
        known |= {row.original, row.unlearned}
        runs[row.run_id] = bool((trained & ~left_out).any())
        if trained.any():
            data.add(row.data)
        before = trained | made.get(row.original, False) if row.given else trained
        made[row.unlearned] = (before if row.inherits else trained) & ~left_out
        models |= {row.original} if before.any() else set()
        models |= {row.unlearned} if made[row.unlearned].any() else set()
    trained_here = {row.original for row in index.rows() if not row.given and index.path(row.trained).is_file()}
    return Seen(frozenset(data), frozenset(models), frozenset(known), runs, frozenset(trained_here - models))


def until(days: int | None, since: str, now: str) -> tuple[bool, str | None]:
    """Whether models superseded at ``since`` may go now, and the day on which they may; None for never."""
    if days is None:
        return False, None
    day = datetime.fromisoformat(since) + timedelta(days=days)
    return datetime.fromisoformat(now) >= day, day.date().isoformat()
