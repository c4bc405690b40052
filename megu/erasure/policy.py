"""What becomes of what the stages made from the samples: which files have a row per sample, which are models trained on them."""

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

#: Stage and file: one row per sample of the data set, whatever was forgotten.
PER_SAMPLE = {
    ("predictions", "predictions"): "what a model answers to each image",
    ("condensed", "condensed"): "what a model answers to each image",
    ("perturbing", "perturbing"): "what each forgotten image is taught instead",
    ("evaluation", "distributions"): "confidence and entropy of each image",
    ("shadow", "shadow"): "what a shadow model answers to each image",
}
#: Stage -> a model trained on the whole data set, including the forgotten samples.
MODELS = {"original": "weights", "given": "weights"}
#: Stage -> a model trained on what a split retains (for a given retrain, on its supplier's word): it knows the samples unless the split's
#: forget set has them.
RETAINING = {"unlearn": "weights", "reference": "weights", "given-reference": "weights"}
#: What stays of a run, and why. None of it contains a sample.
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
    """A file that a stage made, with its data set (DVC hash) and, where the stage needs one, its split (digest of the split's result)."""

    stage: str
    name: str
    sha256: str
    data: str
    split: str


def cached_results(project: Project) -> Iterator[tuple[Path, Result]]:
    """Yield every cached result that can be read, with its file."""
    for path in sorted(project.results.glob("*")) if project.results.is_dir() else []:
        try:
            yield path, Result.from_json(json.loads(json.loads(path.read_bytes())["result"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue


def made(results: Sequence[Result], records: Sequence[tuple[str, Sequence[Record]]]) -> list[Made]:
    """Return the files of cached results and of dossiers' records (each with its data set's hash): a file may outlive its result."""
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
    """Return the splits, by the digests of their results, that the models of a run were made for."""
    return {_split(record.parts) for record in records if record.stage in RETAINING}


def _split(parts: Mapping[str, Any]) -> str:
    return str(parts.get("input split", ""))


@dataclass(frozen=True)
class Seen:
    """Which data sets and models had the forgotten samples, according to the index. data: DVC hashes. models: SHA-256 of the weights that
    saw them. known: SHA-256 of all weights. runs: MLflow run id -> whether its retain set has some of them. innocent: originals trained
    here, on a part of a data set (``data.per_class``) that has none of them."""

    data: frozenset[str]
    models: frozenset[str]
    known: frozenset[str]
    runs: Mapping[str, bool]
    innocent: frozenset[str] = frozenset()


def seen(index: Index, forgotten: frozenset[bytes]) -> Seen:
    """Query the index about every recorded run. A model has seen a sample if the sample is in its training set and not in its forget set,
    or if the model it was made from had seen it: an earlier run may have trained that one on more than this run has."""
    wanted = np.frombuffer(b"".join(sorted(forgotten)), dtype=f"S{SIZE}")
    inside: dict[str, NDArray[np.bool_]] = {}

    def has(name: str) -> NDArray[np.bool_]:
        if name not in inside:
            content = index.path(name).read_bytes() if index.path(name).is_file() else b""
            inside[name] = np.isin(wanted, np.frombuffer(content, dtype=f"S{SIZE}"))
        return inside[name]

    data, models, known, runs = set(), set(), set(), dict[str, bool]()
    made: dict[str, NDArray[np.bool_]] = {}  # weights -> what an unlearned model knows
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
    """Return whether models superseded at ``since`` may be erased now, and the day from which they may; None for never."""
    if days is None:
        return False, None
    day = datetime.fromisoformat(since) + timedelta(days=days)
    return datetime.fromisoformat(now) >= day, day.date().isoformat()
